//! The benchmark still measures everything. What comes out in so little time means nothing, and is not looked at.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn everything_is_measured() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quick");
    fs::create_dir_all(&out).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    fs::copy(page, out.join("benchmarks.md")).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_kms-bench"))
        .arg("--quick")
        .arg("--out")
        .arg(&out)
        .status()
        .unwrap();
    assert!(ended.success());
    let page = fs::read_to_string(out.join("benchmarks.md")).unwrap();
    let results = fs::read_to_string(out.join("bench/results.json")).unwrap();
    for scenario in [
        "floor",
        "started, batch",
        "created, single reads",
        "at rest",
        "restart",
        "new KmsSecret",
        "one rotates",
        "all rotate",
        "replica stopped",
        "2 replicas",
    ] {
        assert!(page.contains(&format!(" {scenario} |")), "{scenario}");
        assert!(results.contains(&format!("\"{scenario}\"")), "{scenario}");
    }
    let counted = [
        "writes of Secrets in a cold sync: 1 each | 20 | 20 | 20 | 1 | met",
        "restart in sync: 0 writes besides Leases | 20 | 0 | 0 |  | met",
    ];
    for count in counted {
        assert!(page.contains(count), "{count}\n{page}");
    }
    let picture = fs::read_to_string(out.join("bench/cost.svg")).unwrap();
    assert!(picture.contains("polyline"));
}
