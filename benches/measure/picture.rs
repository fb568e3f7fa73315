//! A picture of results: bars in pairs, on a logarithmic scale.

use std::fmt::Write as _;
use std::fs;

use super::table::{beside, folder};

/// One pair of bars.
pub(crate) struct Bars {
    pub(crate) name: String,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
}

const WIDTH: f64 = 480.0;
const LEFT: f64 = 150.0;
const ROW: f64 = 44.0;
const TOP: f64 = 64.0;

/// Writes `target/bench/NAME.svg`, with a name as a table beside keepalived has one.
pub(crate) fn draw(name: &str, title: &str, unit: &str, pairs: &[Bars]) {
    let values = || pairs.iter().flat_map(|pair| [pair.ours, pair.theirs]);
    let least = values().fold(f64::INFINITY, f64::min).log10().floor();
    let most = values().fold(0.0, f64::max).log10().ceil().max(least + 1.0);
    let length = |value: f64| (value.log10() - least) / (most - least) * WIDTH;
    let height = TOP + ROW * pairs.len() as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{height}\" \
         viewBox=\"0 0 {0} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\">{title}</text>\n\
         <rect x=\"16\" y=\"36\" width=\"12\" height=\"12\" fill=\"#1b7f5c\"/>\
         <text x=\"34\" y=\"47\">havip</text>\n\
         <rect x=\"90\" y=\"36\" width=\"12\" height=\"12\" fill=\"#b9c0c7\"/>\
         <text x=\"108\" y=\"47\">keepalived</text>\n",
        LEFT + WIDTH + 80.0
    );
    let mut decade = least;
    while decade <= most {
        let x = LEFT + length(10_f64.powf(decade));
        let label = 10_f64.powf(decade);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{}\" stroke=\"#e3e6e8\"/>\
             <text x=\"{x}\" y=\"{}\" fill=\"#667\" text-anchor=\"middle\">{label} {unit}</text>",
            TOP - 6.0,
            height - 24.0,
            height - 8.0
        );
        decade += 1.0;
    }
    for (at, pair) in pairs.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        let _ = writeln!(svg, "<text x=\"16\" y=\"{}\">{}</text>", y + 20.0, pair.name);
        for (value, y, colour) in [(pair.ours, y, "#1b7f5c"), (pair.theirs, y + 17.0, "#b9c0c7")] {
            let bar = length(value).max(1.0);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{bar:.1}\" height=\"15\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{value:.1}</text>",
                LEFT + bar + 6.0,
                y + 12.0
            );
        }
    }
    svg += "</svg>\n";
    fs::write(folder().join(format!("{}.svg", beside(name))), svg).expect("it can be written");
}
