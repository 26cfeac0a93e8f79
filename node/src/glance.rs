//! The cluster at a glance: what `carillon status` and the page at `/` have in common, made of what
//! `/api/v1/cluster/*` answers.

use serde_json::Value;

/// Headings of [`rows`]; those of numbers begin with `#`.
pub(crate) const HEADINGS: [&str; 9] =
    ["name", "zone", "state", "#share", "#free", "#lacking", "#hints", "bucket", "doing"];

/// A few lines on the whole cluster, as name and text. `problems` is how many there are.
pub(crate) fn summary(
    ring: &Value,
    safety: &Value,
    members: &Value,
    problems: usize,
) -> Vec<(&'static str, String)> {
    let all = list(members);
    let alive = all.iter().filter(|m| m["alive"] == true).count();
    let open = list(&ring["placements"]).len();
    let state = match (ring["joint"] == true, open) {
        (true, _) => "changing".to_owned(),
        (false, 1) => "settled".to_owned(),
        (false, _) => format!("settled, {} older placements still hold samples of their own", open - 1),
    };
    let under = if ring["under_replicated"] == true { ", under-replicated" } else { "" };
    let bucket = &ring["bucket"];
    let bucket_state = match bucket["problem"].as_str() {
        Some(problem) => format!("away: {problem}"),
        None => "fine".to_owned(),
    };
    let health = match problems {
        0 => "well".to_owned(),
        1 => "not well: 1 problem".to_owned(),
        several => format!("not well: {several} problems"),
    };
    let mut lines = vec![
        ("cluster", text(&ring["cluster"])),
        ("health", health),
        ("next node", next_node(safety)),
        ("members", format!("{} ({alive} alive)", all.len())),
        ("ring", format!("epoch {}, {state}", ring["epoch"])),
        ("copies", format!("{} of {} wanted{under}", ring["effective_rf"], ring["replication_factor"])),
        ("bucket", format!("{} ({bucket_state})", text(&bucket["url"]))),
    ];
    lines.extend(list(&ring["notes"]).iter().map(|note| ("note", text(note))));
    lines
}

/// Whether the next node may be taken, by what `/api/v1/cluster/safe` answers; `null` where it doesn't.
fn next_node(safety: &Value) -> String {
    match (safety["safe"].as_bool(), list(&safety["reasons"])) {
        (Some(true), _) => "safe to take".to_owned(),
        (Some(false), [first]) => format!("not safe to take: {}", text(first)),
        (Some(false), [first, more @ ..]) => {
            format!("not safe to take: {} (and {} more reasons)", text(first), more.len())
        }
        _ => "?".to_owned(),
    }
}

/// A row for each member: what it is, and what it does. A node that didn't tell of itself is `null`.
pub(crate) fn rows(members: &Value, nodes: &[Value]) -> Vec<Vec<String>> {
    let row = |(member, node): (&Value, &Value)| {
        let told = |value: String| if node.is_null() { "?".to_owned() } else { value };
        let share = member["ownership"].as_f64().unwrap_or_default();
        let doing = match (node.is_null(), member["alive"] == true) {
            (false, _) => text(&node["doing"]),
            (true, true) => format!("there; {} can't be asked from here", text(&member["http_address"])),
            (true, false) => "away".to_owned(),
        };
        let bucket = if node["bucket"]["failures"].as_u64() > Some(0) { "away" } else { "fine" };
        vec![
            text(&member["name"]),
            text(&member["zone"]),
            text(&member["state"]),
            format!("{:.1} %", share * 100.0),
            told(bytes(&node["disk"]["free_bytes"])),
            told(node["repair"]["windows_lacking"].to_string()),
            told(bytes(&node["hints"]["bytes"])),
            told(bucket.to_owned()),
            doing,
        ]
    };
    list(members).iter().zip(nodes).map(row).collect()
}

/// What isn't well, in sentences: with the ring, with the node that was asked, and with others that told of themselves.
pub(crate) fn problems(ring: &Value, members: &Value, nodes: &[Value]) -> Vec<String> {
    let strings = |value: &Value| -> Vec<String> {
        list(value).iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let mut found = strings(&ring["problems"]);
    for (member, node) in list(members).iter().zip(nodes) {
        // The ring's own list has those of the node that was asked.
        let of_ring = if member["me"] == true { &found[..] } else { &[] };
        let own: Vec<_> =
            strings(&node["problems"]).into_iter().filter(|one| !of_ring.contains(one)).collect();
        found.extend(own.into_iter().map(|problem| format!("{}: {problem}", text(&member["name"]))));
    }
    found
}

/// Bytes with the unit that suits them.
pub(crate) fn bytes(value: &Value) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (value.as_f64().unwrap_or_default(), 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{amount} B") } else { format!("{amount:.2} {}", UNITS[unit]) }
}

/// The elements of a list; none where it isn't one.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A string without its quotes; anything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_cannot_be_asked_is_shown_all_the_same() {
        let members = json!([{"name": "a", "alive": true}, {"name": "b", "alive": false}]);
        let node = json!({
            "doing": "draining: sending hints", "disk": {"free_bytes": 1u64 << 31}, "hints": {"bytes": 81_000},
            "repair": {"windows_lacking": 3}, "bucket": {"failures": 1},
        });
        let rows = rows(&members, &[node, Value::Null]);
        assert_eq!(rows[0][4..], ["2.00 GiB", "3", "79.10 KiB", "away", "draining: sending hints"]);
        assert_eq!(rows[1][4..], ["?", "?", "?", "?", "away"]);
        assert!(rows.iter().all(|row| row.len() == HEADINGS.len()));
    }

    #[test]
    fn the_summary_says_what_is_wrong() {
        let ring = json!({
            "cluster": "c", "epoch": 7, "joint": false, "replication_factor": 3, "effective_rf": 2,
            "under_replicated": true, "placements": [{}, {}], "bucket": {"url": "s3://b", "problem": "timed out"},
            "notes": ["a write needs both"],
        });
        let safety = json!({"safe": false, "reasons": ["hints wait for b", "b: it is away"]});
        let lines = summary(&ring, &safety, &json!([{"alive": true}, {"alive": false}]), 2);
        let text: String = lines.into_iter().map(|(name, text)| format!("{name} {text}\n")).collect();
        for part in [
            "2 (1 alive)",
            "epoch 7",
            "1 older placements",
            "2 of 3 wanted, under-replicated",
            "away: timed out",
            "not well: 2 problems",
            "note a write needs both",
            "not safe to take: hints wait for b (and 1 more reasons)",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_problem_of_another_node_bears_its_name_and_none_is_told_twice() {
        let ring = json!({"problems": ["no quorum", "own"]});
        let members = json!([{"name": "a", "me": true}, {"name": "b", "me": false}, {"name": "c"}]);
        let nodes = [json!({"problems": ["own", "disk full"]}), json!({"problems": ["own"]}), Value::Null];
        assert_eq!(problems(&ring, &members, &nodes), ["no quorum", "own", "a: disk full", "b: own"]);
    }
}
