//! The picture of a prediction: share of informed nodes over time, with the median and the 99th percentile.

use std::fmt::Write;
use std::time::Duration;

use trilemma_gossip::predictor::{Params, Report};

use crate::output;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 616.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 308.0;

/// Colours that people who see few colours tell apart (Okabe and Ito), and dashes beside them; light and dark.
const STYLE: &str = "\
text{font:13px sans-serif;fill:#222}.axis{stroke:#666;fill:none}.curve{stroke:#0072b2;stroke-width:2.5;fill:none}\
.p50{stroke:#009e73;stroke-width:2;stroke-dasharray:2 4}.p99{stroke:#d55e00;stroke-width:2;stroke-dasharray:8 4}\
.back{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#eee}.axis{stroke:#aaa}.curve{stroke:#56b4e9}\
.p99{stroke:#e69f00}.back{fill:#1b1b1b}}";

/// Draws it as SVG.
pub(super) fn draw(params: &Params, report: &Report) -> String {
    let found = &report.prediction;
    let last = report.curve.last().map_or(Duration::ZERO, |point| point.time);
    let end = last.max(found.p999).as_secs_f64().max(1e-6) * 1.02;
    let x = |time: Duration| LEFT + (RIGHT - LEFT) * (time.as_secs_f64() / end).min(1.0);
    let y = |share: f64| BOTTOM - (BOTTOM - TOP) * share;
    let title = format!(
        "{} nodes, fanout {}: share that has a write",
        params.nodes, params.fanout
    );
    let about = format!(
        "The share of informed nodes rises from one node to all. Half of the writes are everywhere after {}, 99 of 100 \
         after {}. Computed by: {}.",
        output::duration(found.p50),
        output::duration(found.p99),
        found.engine
    );
    let mut points = format!("{:.1},{:.1}", x(Duration::ZERO), y(1.0 / f64::from(params.nodes)));
    for point in &report.curve {
        let _ = write!(points, " {:.1},{:.1}", x(point.time), y(point.share));
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-labelledby=\"title about\">\n<title id=\"title\">{title}</title>\n<desc id=\"about\">{about}</desc>\n\
         <style>{STYLE}</style>\n<rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text x=\"{LEFT}\" y=\"20\">{title}</text>\n\
         <path class=\"axis\" d=\"M{LEFT},{TOP}V{BOTTOM}H{RIGHT}\"/>\n"
    );
    for percent in [0, 25, 50, 75, 100] {
        let at = y(f64::from(percent) / 100.0) + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"48\" y=\"{at:.1}\" text-anchor=\"end\">{percent} %</text>"
        );
    }
    for quarter in 0..=4 {
        let time = Duration::from_secs_f64(end * f64::from(quarter) / 4.0);
        let (at, label) = (x(time), output::duration(time));
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"328\" text-anchor=\"middle\">{label}</text>"
        );
    }
    for (class, time, height) in [("p50", found.p50, 40.0), ("p99", found.p99, 40.0)] {
        let (at, label) = (x(time), output::duration(time));
        let anchor = if class == "p50" { "end" } else { "start" };
        let _ = writeln!(
            svg,
            "<path class=\"{class}\" d=\"M{at:.1},{TOP}V{BOTTOM}\"/>\n\
             <text x=\"{at:.1}\" y=\"{height}\" text-anchor=\"{anchor}\">{class} {label}</text>"
        );
    }
    let _ = writeln!(svg, "<polyline class=\"curve\" points=\"{points}\"/>\n</svg>");
    svg
}
