//! Bit rot in an owner's blocks costs that owner, and not the answer.
//!
//! Varied: which store's blocks rotted, and how many stores' (one to three of three); where in the chunk files; through
//! which node it is asked; whether series are fetched, aggregated by their owners or only named. Held: three owners with
//! equal samples in blocks, and rot in chunk files alone: a store leaves out blocks whose other files are damaged when it
//! starts.

use tsdb::disk::Disk as _;

use super::*;

const SERIES: i32 = 30;

/// Three owners that have everything in blocks. Those of `rotted` have a byte flipped in each chunk file, at so many
/// thousandths of it (0 to 1000).
async fn cluster(rotted: &[usize], thousandths: u64) -> Cluster {
    let cluster = Cluster::of(3, 3).await;
    cluster.fill(SERIES);
    for member in &cluster.members {
        let done = member.node.app.storage.db().flush(NOW_MS).unwrap();
        assert!(done.problems.is_empty() && !done.cut.is_empty());
    }
    for number in rotted {
        cluster.members[number - 1].rot(thousandths);
    }
    // A block that is open has its files mapped: what rotted is read by who opens it again.
    cluster.restart().await
}

impl Member {
    fn rot(&self, thousandths: u64) {
        for block in self.node.app.storage.db().local_blocks() {
            let file = block.dir.join("chunks").join("000001");
            let bytes = self.node.disk.size_bytes(&file).unwrap().unwrap();
            // The header is read when the block is opened.
            let offset = 8 + (bytes - 9) * thousandths / 1000;
            self.node.disk.flip(&file, offset, 0x10).unwrap();
        }
    }
}

/// A question of all samples, and what a whole answer to it has as its only value.
fn questions() -> Vec<(String, String)> {
    let count = (SERIES * 8).to_string();
    let ask = |query: &str, more: &str| {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("/api/v1/query?time={}&query={query}{more}", NOW_MS / 1000)
    };
    let samples = "sum(count_over_time({job=\"a\"}[5m]))";
    let of_all = "count by (job) ({job=\"a\"})";
    vec![
        (ask(samples, "&push_down=false"), count.clone()),
        (ask(samples, "&push_down=true"), count),
        (ask(of_all, ""), SERIES.to_string()),
    ]
}

#[tokio::test]
async fn rot_in_an_owners_block_is_that_owners_silence() {
    for (rotted, thousandths) in [(1, 0), (2, 500), (3, 1000)] {
        let cluster = cluster(&[rotted], thousandths).await;
        for (number, member) in cluster.members.iter().enumerate() {
            for (path, whole) in questions() {
                let answer = member.node.get(&path).await;
                assert!(
                    answer.status.is_success(),
                    "through {number}, {rotted} rotted: {:?}",
                    answer.error()
                );
                assert_eq!(answer.data()["result"][0]["value"][1], whole, "through {number}: {path}");
                let coverage = answer.headers["x-carillon-coverage"].to_str().unwrap();
                assert!(
                    coverage.starts_with("complete; nodes=2/3; "),
                    "through {number}, {path}: {coverage}"
                );
            }
            let names = member.node.get("/api/v1/label/__name__/values").await;
            assert_eq!(names.json()["data"].as_array().unwrap().len(), usize::try_from(SERIES).unwrap());
        }
    }
}

#[tokio::test]
async fn rot_in_more_owners_blocks_than_others_make_up_for_is_told() {
    for rotted in [&[1, 2][..], &[1, 2, 3]] {
        let cluster = cluster(rotted, 500).await;
        for member in &cluster.members {
            for (path, _) in questions() {
                let answer = member.node.get(&path).await;
                let (status, _, message) = answer.error();
                assert_eq!(status, 503, "{message}");
                for named in ["n1", "n2", "corrupt chunk", "chunks/000001"] {
                    assert!(message.contains(named), "{named} is missing in: {message}");
                }
                let partial = member.node.get(&format!("{path}&partial_response=true")).await;
                assert!(partial.status.is_success());
                assert!(partial.headers["x-carillon-coverage"].to_str().unwrap().starts_with("incomplete; "));
            }
        }
    }
}
