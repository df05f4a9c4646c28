//! Figures drawn in SVG, as wide as a phone, which a browser scales.

use std::fmt::Write as _;

/// Units across a figure; on a phone a unit is about a pixel.
pub(super) const WIDTH: f64 = 400.0;

/// Where a text begins, ends or has its middle.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that grows. Colours come from the page's style sheet, by the class of each shape.
#[derive(Debug)]
pub(super) struct Drawing {
    height: f64,
    shapes: String,
}

impl Drawing {
    pub(super) fn new(height: f64) -> Self {
        Self { height, shapes: String::new() }
    }

    fn add(&mut self, shape: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = self.shapes.write_fmt(shape);
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
    }

    /// A line through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" ")));
    }

    /// A dot that tells `tip` to a pointer that rests on it.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, tip: &str) {
        let tip = escape(tip);
        self.add(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{tip}</title></circle>"
        ));
    }

    /// A bar that tells `tip` to a pointer that rests on it.
    pub(super) fn bar(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), tip: &str) {
        let tip = escape(tip);
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
             <title>{tip}</title></rect>"
        ));
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }
}

/// A drawing with all that a reader needs to understand it.
#[derive(Debug)]
pub(super) struct Figure {
    pub title: String,
    /// What it shows, for those who cannot see it.
    pub description: String,
    /// Classes of the colours with what they mean.
    pub legend: Vec<(&'static str, String)>,
    /// Nothing where there is nothing to draw; the caption says why.
    pub drawing: Option<Drawing>,
    pub caption: String,
}

impl Figure {
    pub(super) fn html(&self) -> String {
        let title = escape(&self.title);
        let mut html = format!("<figure><h3>{title}</h3>");
        if !self.legend.is_empty() {
            html.push_str("<p class=\"legend\">");
            for (class, meaning) in &self.legend {
                let _ = write!(html, "<span><i class=\"{class}\"></i>{}</span> ", escape(meaning));
            }
            html.push_str("</p>");
        }
        if let Some(Drawing { height, shapes }) = &self.drawing {
            let description = escape(&self.description);
            let _ = write!(
                html,
                "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {height}\"><title>{title}</title><desc>{description}</desc>\
                 {shapes}</svg>"
            );
        }
        let _ = writeln!(html, "<figcaption>{}</figcaption></figure>", escape(&self.caption));
        html
    }
}

/// `text` as it may stand in a page.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let mut drawing = Drawing::new(10.0);
        drawing.dot("direct", (1.0, 2.0), 3.0, "<script>\"&");
        let figure = Figure {
            title: "a < b".to_owned(),
            description: "\"".to_owned(),
            legend: vec![("direct", "<i>".to_owned())],
            drawing: Some(drawing),
            caption: "a & b".to_owned(),
        };
        let html = figure.html();
        assert!(html.contains("<title>&lt;script&gt;&quot;&amp;</title>"), "{html}");
        assert!(html.contains("<h3>a &lt; b</h3>") && html.contains("a &amp; b") && html.contains("</i>&lt;i&gt;"));
    }

    #[test]
    fn each_drawing_has_a_title_and_a_description() {
        let figure = Figure {
            title: "T".to_owned(),
            description: "D".to_owned(),
            legend: Vec::new(),
            drawing: Some(Drawing::new(50.0)),
            caption: String::new(),
        };
        let expected = "<svg role=\"img\" viewBox=\"0 0 400 50\"><title>T</title><desc>D</desc></svg>";
        assert!(figure.html().contains(expected), "{}", figure.html());
    }
}
