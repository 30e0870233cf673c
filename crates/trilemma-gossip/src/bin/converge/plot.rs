//! The picture: measured over predicted means, one point for each cell, in the band of the tolerance.

use std::fmt::Write;

use crate::cells::Extra;
use crate::measured::Measured;

const SIZE: f64 = 480.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 456.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 424.0;

/// Colours that people who see few colours tell apart (Okabe and Ito), and shapes beside them; light and dark.
const STYLE: &str = "\
text{font:13px sans-serif;fill:#222}.axis{stroke:#666;fill:none}.band{fill:#0072b2;opacity:.12}\
.equal{stroke:#0072b2;stroke-dasharray:4 4}.plain{fill:#0072b2}.groups{fill:#d55e00}.top{fill:#009e73}\
.lazy{fill:#cc79a7}.back{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#eee}.axis{stroke:#aaa}\
.plain{fill:#56b4e9}.back{fill:#1b1b1b}}";

/// Draws it as SVG.
pub(crate) fn draw(cells: &[Measured]) -> String {
    let mean = |cell: &Measured| cell.predicted.mean.max(cell.measured.mean);
    let end = cells.iter().map(mean).fold(1.0, f64::max).ceil() + 1.0;
    let x = |ticks: f64| LEFT + (RIGHT - LEFT) * ticks / end;
    let y = |ticks: f64| BOTTOM - (BOTTOM - TOP) * (ticks / end).clamp(0.0, 1.0);
    let within = cells.iter().filter(|cell| cell.is_within()).count();
    let title = format!("Ticks until all have a write: {} cells", cells.len());
    let about = format!(
        "Measured means of simulated clusters of the shipped gossip core over predicted means. {within} of {} cells are \
         within the tolerance, which is the band: 0.3 ticks or 5 %.",
        cells.len()
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIZE} {SIZE}\" role=\"img\" \
         aria-labelledby=\"title about\">\n<title id=\"title\">{title}</title>\n<desc id=\"about\">{about}</desc>\n\
         <style>{STYLE}</style>\n<rect class=\"back\" width=\"{SIZE}\" height=\"{SIZE}\"/>\n\
         <text x=\"{LEFT}\" y=\"20\">{title}</text>\n"
    );
    let bound = |ticks: f64| (ticks * 0.05).max(0.3);
    let at = [0.0, 6.0_f64.min(end), end];
    let above = at.map(|ticks| format!("{:.1},{:.1}", x(ticks), y(ticks + bound(ticks))));
    let mut below = at.map(|ticks| format!("{:.1},{:.1}", x(ticks), y(ticks - bound(ticks))));
    below.reverse();
    let _ = writeln!(
        svg,
        "<polygon class=\"band\" points=\"{} {}\"/>\n\
         <path class=\"equal\" d=\"M{:.1},{:.1}L{:.1},{:.1}\"/>\n\
         <path class=\"axis\" d=\"M{LEFT},{TOP}V{BOTTOM}H{RIGHT}\"/>",
        above.join(" "),
        below.join(" "),
        x(0.0),
        y(0.0),
        x(end),
        y(end)
    );
    for quarter in 0..=4 {
        let ticks = end * f64::from(quarter) / 4.0;
        let (across, up) = (x(ticks), y(ticks));
        let _ = writeln!(
            svg,
            "<text x=\"{across:.1}\" y=\"442\" text-anchor=\"middle\">{ticks:.0}</text>\n\
             <text x=\"48\" y=\"{:.1}\" text-anchor=\"end\">{ticks:.0}</text>",
            up + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"256\" y=\"464\" text-anchor=\"middle\">predicted mean, ticks</text>\n\
         <text x=\"16\" y=\"232\" text-anchor=\"middle\" transform=\"rotate(-90 16 232)\">measured mean, ticks</text>"
    );
    for cell in cells {
        let _ = writeln!(
            svg,
            "{}",
            point(cell, x(cell.predicted.mean), y(cell.measured.mean))
        );
    }
    for (row, (class, label)) in [
        ("plain", "plain"),
        ("groups", "groups"),
        ("top", "preferred senders"),
        ("lazy", "fetched values"),
    ]
    .into_iter()
    .enumerate()
    {
        let up = TOP + 16.0 + 18.0 * row as f64;
        let _ = writeln!(
            svg,
            "{}\n<text x=\"84\" y=\"{:.1}\">{label}</text>",
            shape(class, 74.0, up - 4.0),
            up
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn point(cell: &Measured, across: f64, up: f64) -> String {
    let class = match cell.cell.extra {
        Extra::None => "plain",
        Extra::Groups | Extra::GroupsAndTop => "groups",
        Extra::Top => "top",
        Extra::Lazy => "lazy",
    };
    shape(class, across, up)
}

fn shape(class: &str, x: f64, y: f64) -> String {
    match class {
        "plain" => format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"),
        "groups" => format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"6\" height=\"6\"/>",
            x - 3.0,
            y - 3.0
        ),
        "top" => format!("<path class=\"{class}\" d=\"M{x:.1},{:.1}l4,7h-8z\"/>", y - 4.0),
        _ => format!(
            "<path class=\"{class}\" d=\"M{x:.1},{:.1}l4,4l-4,4l-4,-4z\"/>",
            y - 4.0
        ),
    }
}
