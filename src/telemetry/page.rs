//! One metrics page out of the server's and the sidecar's own.

use std::collections::BTreeMap;

/// The server's page with the sidecar's metrics added.
///
/// A family must stand on a page once, in one piece. So where both have a family of the same name (a server that
/// speculates by itself), the sidecar's samples join the server's, told apart by the label `engine="sidedraft"`.
#[must_use]
pub fn merge(upstream: &str, own: &str) -> String {
    let mut own = families(own);
    let mut page = String::with_capacity(upstream.len() + 8192);
    let mut current: Option<&str> = None;
    for line in upstream.lines() {
        let name = family_of(line);
        if let (Some(name), Some(previous)) = (name, current)
            && name != previous
            && !belongs_to(name, previous)
        {
            join(&mut page, &mut own, previous);
        }
        current = match (name, current) {
            (Some(name), Some(previous)) if belongs_to(name, previous) => Some(previous),
            (Some(name), _) => Some(name),
            (None, current) => current,
        };
        page.push_str(line);
        page.push('\n');
    }
    if let Some(last) = current {
        join(&mut page, &mut own, last);
    }
    for lines in own.values() {
        for line in lines {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}

/// Appends the sidecar's samples of `family`, without their header, which stands already.
fn join(page: &mut String, own: &mut BTreeMap<&str, Vec<&str>>, family: &str) {
    let Some(lines) = own.remove(family) else { return };
    for line in lines.into_iter().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labelled = match rest.strip_prefix('{') {
            Some(labels) => format!("{name}{{engine=\"sidedraft\",{labels}\n"),
            None => format!("{name}{{engine=\"sidedraft\"}}{rest}\n"),
        };
        page.push_str(&labelled);
    }
}

/// The page's lines by family, in which the sidecar's own pages come without gaps.
fn families(page: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for line in page.lines() {
        match family_of(line) {
            Some(name) if line.starts_with('#') || !belongs_to(name, current) => current = name,
            _ => {}
        }
        families.entry(current).or_default().push(line);
    }
    families
}

/// The metric that a line names.
fn family_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
    match rest {
        Some(rest) => rest.split(' ').next(),
        None if line.is_empty() || line.starts_with('#') => None,
        None => line.split(['{', ' ']).next(),
    }
}

/// Whether a sample of this name is part of `family`: a histogram's samples bear suffixes.
fn belongs_to(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|suffix| matches!(suffix, "" | "_bucket" | "_sum" | "_count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n\
                       # HELP d D.\n# TYPE d histogram\nd_bucket{x=\"1\",le=\"+Inf\"} 2\nd_sum{x=\"1\"} 3\nd_count{x=\"1\"} 2\n";

    #[test]
    fn without_common_names_the_pages_follow_each_other() {
        let upstream = "# HELP b B.\n# TYPE b gauge\nb 7\n";
        assert_eq!(merge(upstream, OWN), format!("{upstream}{OWN}"));
        assert_eq!(merge("", OWN), OWN);
    }

    #[test]
    fn a_common_family_stays_in_one_piece() {
        let upstream =
            "# HELP a_total A.\n# TYPE a_total counter\na_total{engine=\"0\"} 5\n# HELP b B.\n# TYPE b gauge\nb 7\n";
        let merged = merge(upstream, OWN);
        expect_test::expect![[r##"
            # HELP a_total A.
            # TYPE a_total counter
            a_total{engine="0"} 5
            a_total{engine="sidedraft"} 1
            # HELP b B.
            # TYPE b gauge
            b 7
            # HELP d D.
            # TYPE d histogram
            d_bucket{x="1",le="+Inf"} 2
            d_sum{x="1"} 3
            d_count{x="1"} 2
        "##]]
        .assert_eq(&merged);
    }

    #[test]
    fn a_common_histogram_keeps_its_samples_together() {
        let upstream = "# HELP d D.\n# TYPE d histogram\nd_bucket{le=\"+Inf\"} 1\nd_sum 1\nd_count 1\n";
        let merged = merge(upstream, OWN);
        let headers = merged.lines().filter(|line| *line == "# TYPE d histogram").count();
        assert_eq!(headers, 1);
        assert!(merged.contains("d_count 1\nd_bucket{engine=\"sidedraft\",x=\"1\",le=\"+Inf\"} 2\n"), "{merged}");
    }
}
