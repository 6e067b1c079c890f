//! Draws charts as SVG. All values are integers: micro-dollars, which are scaled down if they are too large.
//!
//! Each colour has one role. In dark mode, the style sheet of the page replaces the colours: a CSS rule for
//! `[fill="#..."]` overrides the attribute.

use std::collections::BTreeMap;

use jiff::ToSpan;
use jiff::civil::Date;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, RGBColor, Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont, TextStyle};

use bursar::Usd;
use bursar::report::{Group, Tally};

use super::name_of;

/// The colour of payments and API calls.
const CERTAIN: RGBColor = RGBColor(0x1F, 0x6F, 0xB2);
/// The colour of unresolved payments.
const OPEN: RGBColor = RGBColor(0xD9, 0x77, 0x06);
const INK: RGBColor = RGBColor(0x33, 0x41, 0x55);
const GRID: RGBColor = RGBColor(0xDC, 0xE3, 0xEB);

/// The largest number of days and of names that a chart shows.
pub(super) const DAYS: usize = 92;
pub(super) const NAMES: usize = 10;
/// The smallest number of days that a chart shows. Fewer bars would be too wide.
const FEWEST_DAYS: usize = 14;

/// The size of the letters in pixels.
const LETTERS: u32 = 16;
/// The width of a digit in pixels.
const LETTER: u32 = 8;
const ROW: u32 = 46;
const DAY_HEIGHT: u32 = 240;
/// The steps that one bar has on the axis without numbers.
const STEPS: i32 = 10;
/// The largest value of an axis.
const LONGEST_AXIS: u64 = 1_000_000_000_000;

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The width of a chart in pixels, and the largest number of letters and labels in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) letters: usize,
    pub(super) ticks: usize,
}

pub(super) const WIDE: Size = Size {
    width: 880,
    letters: 72,
    ticks: 7,
};
pub(super) const NARROW: Size = Size {
    width: 320,
    letters: 26,
    ticks: 3,
};

/// A bar: the certain amount, and the whole amount with the unresolved payments.
struct Bar {
    name: String,
    certain: Usd,
    whole: Usd,
}

impl Bar {
    fn of(name: String, tally: &Tally) -> Self {
        Self {
            name,
            certain: tally.paid.usd.saturating_add(tally.called.usd),
            whole: tally.spent.usd,
        }
    }
}

/// The scale of an axis: the micro-dollars of one step, and the number of steps.
struct Scale {
    unit: u64,
    longest: u64,
}

impl Scale {
    /// Returns `None` if all bars are zero.
    fn of(bars: &[Bar]) -> Option<Self> {
        let most = bars
            .iter()
            .map(|bar| bar.whole.micros())
            .max()
            .filter(|most| *most > 0)?;
        let unit = most
            .checked_div(LONGEST_AXIS)
            .unwrap_or(0)
            .saturating_add(1);
        Some(Self {
            unit,
            longest: most.div_ceil(unit),
        })
    }

    fn at(&self, usd: Usd) -> u64 {
        usd.micros()
            .checked_div(self.unit)
            .unwrap_or(0)
            .min(self.longest)
    }

    /// Returns the width of the longest label in pixels.
    fn room(&self) -> u32 {
        let label = self.label(self.longest);
        let whole = label.split('.').next().map_or(0, str::len);
        let letters = label.len().max(whole.saturating_add(4));
        u32::try_from(letters)
            .unwrap_or(u32::MAX)
            .saturating_mul(LETTER)
            .saturating_add(12)
    }

    fn label(&self, steps: u64) -> String {
        Usd::from_micros(steps.saturating_mul(self.unit)).to_string()
    }
}

fn ink(horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", LETTERS)
        .into_font()
        .color(&INK)
        .pos(Pos::new(horizontal, vertical))
}

fn place(index: usize) -> i32 {
    i32::try_from(index)
        .unwrap_or(i32::MAX)
        .saturating_mul(STEPS)
}

/// Returns the number of days from the first to the last day, both included.
pub(super) fn span(groups: &[Group]) -> usize {
    let (first, last) = (
        groups.iter().find_map(date),
        groups.iter().rev().find_map(date),
    );
    let days = first
        .zip(last)
        .and_then(|(first, last)| last.since(first).ok());
    days.map_or(0, |days| {
        usize::try_from(days.get_days())
            .unwrap_or(0)
            .saturating_add(1)
    })
}

fn date(day: &Group) -> Option<Date> {
    day.name.as_ref()?.parse().ok()
}

/// Draws a bar for each of the last [`DAYS`] days, also for days without a purchase. Returns `None` if nothing was spent.
pub(super) fn days(groups: &[Group], size: Size) -> Option<String> {
    let known: BTreeMap<Date, &Tally> = groups
        .iter()
        .filter_map(|day| Some((date(day)?, &day.tally)))
        .collect();
    let (last, _) = known.last_key_value()?;
    let length = i64::try_from(span(groups).clamp(FEWEST_DAYS, DAYS)).ok()?;
    let first = last.saturating_sub(length.saturating_sub(1).days());
    let none = Tally::default();
    let calendar = first.series(1.day()).take_while(|day| day <= last);
    let bars: Vec<Bar> = calendar
        .map(|day| Bar::of(day.to_string(), known.get(&day).copied().unwrap_or(&none)))
        .collect();
    let scale = Scale::of(&bars)?;
    let mut svg = String::new();
    draw_days(&mut svg, &bars, &scale, size).ok()?;
    Some(svg)
}

fn draw_days(svg: &mut String, bars: &[Bar], scale: &Scale, size: Size) -> Drawn {
    let root = SVGBackend::with_string(svg, (size.width, DAY_HEIGHT)).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(12)
        .margin_right(4)
        .margin_bottom(26)
        .y_label_area_size(scale.room())
        .build_cartesian_2d(0..place(bars.len()), 0..scale.longest)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_labels(5)
        .y_label_formatter(&|steps| scale.label(*steps))
        .label_style(ink(HPos::Right, VPos::Center))
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .axis_style(GRID)
        .draw()?;
    let gap = if bars.len() > 40 { 0 } else { 1 };
    for (index, bar) in bars.iter().enumerate() {
        let (left, right) = (
            place(index).saturating_add(gap),
            place(index.saturating_add(1)).saturating_sub(gap),
        );
        let (certain, whole) = (scale.at(bar.certain), scale.at(bar.whole));
        chart.draw_series([
            Rectangle::new([(left, 0), (right, certain)], CERTAIN.filled()),
            Rectangle::new([(left, certain), (right, whole)], OPEN.filled()),
        ])?;
    }
    let every = bars.len().div_ceil(size.ticks.max(1)).max(1);
    for (index, bar) in bars.iter().enumerate().step_by(every) {
        let (x, y) =
            chart.backend_coord(&(place(index).saturating_add(STEPS.saturating_div(2)), 0));
        // The label has no room for the year. The table contains it.
        let day = bar.name.get(5..).unwrap_or(&bar.name).to_owned();
        root.draw(&Text::new(
            day,
            (x, y.saturating_add(8)),
            ink(HPos::Center, VPos::Top),
        ))?;
    }
    drop(chart);
    root.present()
}

/// Draws a bar for each of the first [`NAMES`] names. Returns `None` for fewer than two names.
pub(super) fn ranking(groups: &[Group], size: Size) -> Option<String> {
    let bars: Vec<Bar> = super::table::spending(groups)
        .take(NAMES)
        .map(|group| Bar::of(name_of(group), &group.tally))
        .collect();
    if bars.len() < 2 {
        return None;
    }
    let scale = Scale::of(&bars)?;
    let mut svg = String::new();
    draw_ranking(&mut svg, &bars, &scale, size).ok()?;
    Some(svg)
}

fn draw_ranking(svg: &mut String, bars: &[Bar], scale: &Scale, size: Size) -> Drawn {
    let rows = u32::try_from(bars.len()).unwrap_or(u32::MAX);
    let root =
        SVGBackend::with_string(svg, (size.width, ROW.saturating_mul(rows))).into_drawing_area();
    let mut chart =
        ChartBuilder::on(&root).build_cartesian_2d(0..scale.longest, place(bars.len())..0)?;
    for (index, bar) in bars.iter().enumerate() {
        let (text, top, bottom) = (
            place(index).saturating_add(6),
            place(index).saturating_add(6),
            place(index).saturating_add(9),
        );
        let (certain, whole) = (scale.at(bar.certain), scale.at(bar.whole));
        chart.draw_series([
            Rectangle::new([(0, top), (scale.longest, bottom)], GRID.filled()),
            Rectangle::new([(0, top), (certain, bottom)], CERTAIN.filled()),
            Rectangle::new([(certain, top), (whole, bottom)], OPEN.filled()),
        ])?;
        chart.draw_series([
            Text::new(
                cut(&bar.name, size.letters),
                (0, text),
                ink(HPos::Left, VPos::Bottom),
            ),
            Text::new(
                bar.whole.to_string(),
                (scale.longest, text),
                ink(HPos::Right, VPos::Bottom),
            ),
        ])?;
    }
    drop(chart);
    root.present()
}

/// Shortens a name to a number of characters.
fn cut(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    name.chars()
        .take(letters.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// Adds a title and a description for screen readers to a drawing.
pub(super) fn described(svg: &str, id: &str, title: &str, description: &str) -> String {
    let escape = |text: &str| maud::html! { (text) }.into_string();
    let Some(rest) = svg.strip_prefix("<svg ") else {
        return String::new();
    };
    let Some((attributes, drawing)) = rest.split_once('>') else {
        return String::new();
    };
    format!(
        "<svg role=\"img\" aria-labelledby=\"{id}-title {id}-desc\" {attributes}>\
         <title id=\"{id}-title\">{}</title><desc id=\"{id}-desc\">{}</desc>{drawing}",
        escape(title),
        escape(description)
    )
}
