//! Which services fit the words, and how well: simple enough to foretell.

use http::Method;

use super::Criteria;
use super::listing::Listing;
use super::service::Kind;

/// Words of a query beyond this many are not compared.
const MAX_WORDS: usize = 8;

/// The words of a query: lower case, each once, of letters and digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words(Vec<String>);

impl Words {
    pub(crate) fn of(text: &str) -> Self {
        let mut words: Vec<String> = Vec::new();
        for word in tokens(&text.to_lowercase()) {
            let word = singular(word);
            if words.len() < MAX_WORDS && !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        }
        Self(words)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many of the words occur, and how many of them where the thing is named. Each word counts once,
    /// however often a seller repeats it.
    pub(super) fn fit(&self, listing: &Listing) -> Fit {
        let named = self.iter().filter(|word| occurs(word, &listing.named));
        let anywhere = self
            .iter()
            .filter(|word| occurs(word, &listing.named) || occurs(word, &listing.described));
        Fit {
            words: anywhere.count(),
            named: named.count(),
        }
    }
}

/// How well a service fits the words of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit {
    pub(super) words: usize,
    pub(super) named: usize,
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|token| !token.is_empty())
}

/// Without the `s` of a plural, so that `forecasts` finds `forecast`.
fn singular(word: &str) -> &str {
    word.strip_suffix('s')
        .filter(|stem| stem.len() > 3 && !stem.ends_with('s'))
        .unwrap_or(word)
}

/// Whether a word of the text begins so. Scripts that do not part words are looked through.
fn occurs(word: &str, text: &str) -> bool {
    if word.is_ascii() {
        tokens(text).any(|token| token.starts_with(word))
    } else {
        text.contains(word)
    }
}

/// The listings that fit, best first: by words, then by what they are called, then in the order they were found.
pub(super) fn fitting(listings: Vec<Listing>, criteria: &Criteria) -> Vec<Listing> {
    let wanted = |listing: &Listing| {
        let fit = criteria.words.fit(listing);
        let words = criteria.words.is_empty() || fit.words > 0 || listing.searched;
        let kind = criteria.kind.is_none_or(|kind| kind == listing.kind);
        (words && kind && has_method(listing, criteria.method.as_ref())).then_some(fit)
    };
    let mut fitting: Vec<(Fit, Listing)> = listings
        .into_iter()
        .filter_map(|listing| wanted(&listing).map(|fit| (fit, listing)))
        .collect();
    fitting.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
    fitting.into_iter().map(|(_, listing)| listing).collect()
}

fn has_method(listing: &Listing, wanted: Option<&Method>) -> bool {
    match wanted {
        None => true,
        Some(wanted) => {
            listing.kind == Kind::Http
                && listing
                    .method
                    .as_ref()
                    .is_none_or(|method| method == wanted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::listing::Texts;
    use crate::discovery::price::AdvertisedPrice;

    fn listing(path: &str, description: &str) -> Listing {
        let url = format!("https://a.example/{path}").parse().unwrap();
        let texts = Texts {
            description: Some(description),
            ..Texts::default()
        };
        Listing::new(Kind::Http, url, AdvertisedPrice::Nothing, &texts)
    }

    #[test]
    fn words_are_compared_by_their_beginnings_once_each() {
        let words = Words::of("Weather FORECASTS, weather");
        assert_eq!(
            words,
            Words(vec!["weather".to_owned(), "forecast".to_owned()])
        );
        for (path, description, fit) in [
            (
                "weather",
                "Forecasting for tomorrow",
                Fit { words: 2, named: 1 },
            ),
            (
                "x",
                "weather weather weather weather",
                Fit { words: 1, named: 0 },
            ),
            ("unweathered", "no", Fit { words: 0, named: 0 }),
        ] {
            assert_eq!(words.fit(&listing(path, description)), fit, "{path}");
        }
        assert_eq!(
            Words::of("天気").fit(&listing("x", "東京の天気予報")),
            Fit { words: 1, named: 0 }
        );
        assert!(Words::of(" -- ").is_empty());
        assert_eq!(
            Words::of("glass news s").iter().collect::<Vec<_>>(),
            ["glass", "news", "s"]
        );
    }

    #[test]
    fn what_fits_better_comes_first() {
        let all = vec![
            listing("c", "nothing"),
            listing("a", "weather"),
            listing("weather", "forecast"),
        ];
        let criteria = Criteria {
            words: Words::of("weather forecast"),
            ..Criteria::default()
        };
        let paths: Vec<_> = fitting(all, &criteria)
            .iter()
            .map(|listing| listing.url.path().to_owned())
            .collect();
        assert_eq!(paths, ["/weather", "/a"]);
    }
}
