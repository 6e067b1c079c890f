//! The words of a query, and the order of the services that match them.

use http::Method;

use super::Criteria;
use super::listing::Listing;
use super::service::Kind;

/// The number of words of a query that bursar compares.
const MAX_WORDS: usize = 8;

/// The words of a query: different words of letters and digits, in lower case.
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

    /// Counts the words that occur in a listing, and those that occur in its names.
    ///
    /// Each word counts once, even if the seller repeats it.
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

/// The number of words of a query that a service matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit {
    pub(super) words: usize,
    pub(super) named: usize,
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|token| !token.is_empty())
}

/// Removes the `s` of a plural, so that `forecasts` matches `forecast`.
fn singular(word: &str) -> &str {
    word.strip_suffix('s')
        .filter(|stem| stem.len() > 3 && !stem.ends_with('s'))
        .unwrap_or(word)
}

/// Returns whether a word of the text begins with `word`. Some scripts have no spaces between words,
/// so a word in them may occur anywhere.
fn occurs(word: &str, text: &str) -> bool {
    if word.is_ascii() {
        tokens(text).any(|token| token.starts_with(word))
    } else {
        text.contains(word)
    }
}

/// Returns the listings that match: first by words, then by use, then by words in their names, then in
/// the order of the sources.
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
    fitting.sort_by_key(|(fit, listing)| {
        (
            std::cmp::Reverse(fit.words),
            listing.usage.rank(),
            std::cmp::Reverse(fit.named),
        )
    });
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
    fn each_word_matches_the_beginning_of_a_word_once() {
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
    fn better_matches_come_first() {
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
