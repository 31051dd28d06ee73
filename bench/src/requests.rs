//! The requests that an API server has answered, by its own count.

use std::collections::BTreeMap;

const COUNTER: &str = "apiserver_request_total{";
/// All that the operator has the right to write, besides its Lease, as examples/rbac.yaml tells. What the control plane
/// itself does in the background is something else.
const OPERATORS: [&str; 7] = [
    "secrets",
    "kmssecrets",
    "kmssecrets/status",
    "kmsstores/status",
    "clusterkmsstores/status",
    "events",
    "serviceaccounts/token",
];
const WRITES: [&str; 6] = [
    "POST",
    "PUT",
    "PATCH",
    "APPLY",
    "DELETE",
    "DELETECOLLECTION",
];

/// How many requests there were, by verb and by resource with its subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests(BTreeMap<(String, String), u64>);

impl Requests {
    /// Reads what the API server shows at /metrics.
    pub(crate) fn parse(metrics: &str) -> Self {
        let mut all = Self::default();
        for line in metrics.lines() {
            if let Some((verb, resource, count)) = parse_line(line) {
                *all.0.entry((verb, resource)).or_default() += count;
            }
        }
        all
    }

    /// What came since `before`, without watches, which last, and without Leases.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let is_counted =
            |(verb, resource): &(String, String)| verb != "WATCH" && resource != "leases";
        let came = self.0.iter().filter(|(key, _)| is_counted(key));
        let came = came.map(|(key, count)| {
            let earlier = before.0.get(key).copied().unwrap_or_default();
            (key.clone(), count.saturating_sub(earlier))
        });
        Self(came.filter(|(_, count)| *count > 0).collect())
    }

    /// Writes of one resource.
    pub(crate) fn writes_of(&self, resource: &str) -> u64 {
        self.count(|verb, of| of == resource && WRITES.contains(&verb))
    }

    /// Writes of all that the operator may write.
    pub(crate) fn writes(&self) -> u64 {
        OPERATORS
            .iter()
            .map(|resource| self.writes_of(resource))
            .sum()
    }

    /// Reads of single objects that the operator is about: a list is one request however many there are.
    pub(crate) fn gets(&self) -> u64 {
        self.count(|verb, of| verb == "GET" && ["secrets", "kmssecrets"].contains(&of))
    }

    /// Lists of these.
    pub(crate) fn lists(&self) -> u64 {
        self.count(|verb, of| verb == "LIST" && ["secrets", "kmssecrets"].contains(&of))
    }

    fn count(&self, wanted: impl Fn(&str, &str) -> bool) -> u64 {
        let wanted = self.0.iter().filter(|((verb, of), _)| wanted(verb, of));
        wanted.map(|(_, count)| count).sum()
    }
}

fn parse_line(line: &str) -> Option<(String, String, u64)> {
    let (labels, count) = line.strip_prefix(COUNTER)?.rsplit_once("} ")?;
    let label = |name: &str| {
        let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(value.trim_matches('"'))
    };
    let (resource, subresource) = (label("resource")?, label("subresource")?);
    let slash = if subresource.is_empty() { "" } else { "/" };
    // Large numbers come as 1e+06.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let count = count.parse::<f64>().ok()? as u64;
    let resource = format!("{resource}{slash}{subresource}");
    Some((label("verb")?.to_owned(), resource, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, resource: &str, subresource: &str, code: u16, count: &str) -> String {
        format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"\",\
             resource=\"{resource}\",scope=\"resource\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"v1\"}} {count}\n"
        )
    }

    #[test]
    fn requests_are_counted_by_what_they_are_about() {
        let before = line("POST", "secrets", "", 201, "5") + &line("GET", "secrets", "", 200, "7");
        let after = line("POST", "secrets", "", 201, "1e+06")
            + &line("POST", "secrets", "", 409, "2")
            + &line("APPLY", "kmssecrets", "status", 200, "3")
            + &line("PUT", "leases", "", 200, "90")
            + &line("PATCH", "flowschemas", "status", 200, "90")
            + &line("WATCH", "secrets", "", 200, "9")
            + &line("LIST", "kmssecrets", "", 200, "1")
            + &line("GET", "secrets", "", 200, "7")
            + "apiserver_request_duration_seconds_sum 4\n";
        let came = Requests::parse(&after).since(&Requests::parse(&before));
        assert_eq!(came.writes_of("secrets"), 999_997);
        assert_eq!(came.writes_of("kmssecrets/status"), 3);
        assert_eq!(came.writes(), 1_000_000);
        assert_eq!((came.gets(), came.lists()), (0, 1));
        let all = Requests::parse(&after).since(&Requests::default());
        assert_eq!(all.gets(), 7);
        assert_eq!(all.count(|verb, _| verb == "WATCH"), 0);
    }
}
