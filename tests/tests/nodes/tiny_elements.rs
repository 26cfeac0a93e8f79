//! Small bodies of millions of tiny elements: each is refused, and the node's memory stays that of a node. What an
//! element takes when it is decoded counts, not the two bytes that it has on the wire.

use tests::{NodeProcess, carillon, wire};

/// Address space of the process, in KiB: that of a small container.
const ADDRESS_SPACE_KIB: u64 = 4 << 20;
/// Resident memory that no body may need. One decoded, whole, would need gigabytes.
const RESIDENT_BYTES_MAX: u64 = 300 << 20;
/// Bytes of a body before it is compressed: under `http.max_decompressed_body`.
const BODY_BYTES: usize = 52 << 20;

const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A field's tag, of a message or text.
fn tag(field: u8) -> u8 {
    field << 3 | 2
}

/// A field that holds this.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag(number)];
    tsdb::varint::put(&mut bytes, content.len() as u64);
    bytes.extend_from_slice(content);
    bytes
}

/// As many empty elements as a body holds.
fn empties(number: u8) -> Vec<u8> {
    [tag(number), 0].repeat(BODY_BYTES / 2)
}

fn bodies() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let labels = field(1, &[field(1, b"__name__"), field(2, b"m")].concat());
    let of_one = |elements: u8| field(1, &[&labels[..], &empties(elements)].concat());
    let symbols = [field(4, b""), field(4, b"__name__"), field(4, b"m")].concat();
    let v2_of_one = |elements: u8| {
        [&symbols[..], &field(5, &[&field(1, &[1, 2])[..], &empties(elements)].concat())].concat()
    };
    vec![
        ("series", V1, empties(1)),
        ("labels", V1, [field(1, &empties(1)), field(1, &field(2, &[]))].concat()),
        ("samples", V1, of_one(2)),
        ("exemplars", V1, of_one(3)),
        ("histograms", V1, of_one(4)),
        ("metadata", V1, [tag(3), 3, tag(2), 1, b'm'].repeat(BODY_BYTES / 5)),
        ("series", V2, [symbols.clone(), empties(5)].concat()),
        ("label references", V2, [&symbols[..], &field(5, &field(1, &vec![0; BODY_BYTES]))].concat()),
        ("samples", V2, v2_of_one(2)),
        ("histograms", V2, v2_of_one(3)),
        ("exemplars", V2, v2_of_one(4)),
        ("symbols", V2, empties(4)),
    ]
}

/// Most memory that was resident so far.
fn resident_bytes_max(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn bodies_of_millions_of_tiny_elements_are_refused_within_the_memory_of_a_small_container() {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" \"$@\"")]).arg(carillon());
    let mut node =
        NodeProcess::try_start_by(shell, dir.path(), "127.0.0.1:0", &["--peer-address", "127.0.0.1:0"])
            .unwrap();
    let http = node.http();
    for (what, kind, message) in bodies() {
        let headers = [("content-type", kind), ("content-encoding", "snappy")];
        let began = std::time::Instant::now();
        let answer = http.post("/api/v1/write", &headers, wire::compress(&message)).await;
        if std::env::var_os("CARILLON_MEMORY_FIGURES").is_some() {
            println!(
                "{what} ({kind}): {} in {:?}, {} MiB",
                answer.status,
                began.elapsed(),
                resident_bytes_max(node.pid()) >> 20
            );
        }
        assert!([400, 413].contains(&answer.status), "{what}, {kind}: {} {}", answer.status, answer.body);
        assert!(answer.body.len() < 4096, "{what}, {kind}: {} bytes of errors", answer.body.len());
        let resident = resident_bytes_max(node.pid());
        assert!(resident < RESIDENT_BYTES_MAX, "{what}, {kind}: {} MiB were resident", resident >> 20);
    }
    assert!(!node.ended());
    let now_ms = tests::now_ms();
    let answer = http.write(wire::body(&[(&[("__name__", "well")], 1.0, now_ms)])).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    // What one sender may send at once: 500,000 samples of one series, as a catch-up has them.
    let samples: Vec<(i64, f64)> = (0..500_000).map(|i| (now_ms - 7_200_000 + i * 10, i as f64)).collect();
    let mut message = Vec::new();
    let labels = node::bench::payload::encode_labels(&[("__name__", "many")]);
    node::bench::payload::push_series(&mut message, &labels, &samples);
    let answer = http.write(wire::compress(&message)).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    let found = http.query("count_over_time(many[3h])", now_ms).await;
    assert_eq!(found[0]["value"][1], "500000", "{found}");
}
