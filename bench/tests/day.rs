//! The day in its quick form: every count is what the arithmetic says. Times and memory are not looked at.

use std::process::Command;

#[test]
fn a_short_day_is_as_the_arithmetic_says() {
    let ended = Command::new(env!("CARGO_BIN_EXE_kms-bench"))
        .args(["day", "--quick"])
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{said}");
    // It says so of something: expected / seen, first of rotations, then of reads.
    let sum = said.lines().find(|line| line.starts_with("| all | 24 |"));
    let cells: Vec<_> = sum.unwrap().split(" | ").skip(2).collect();
    for cell in &cells[..2] {
        let (expected, seen) = cell.split_once(" / ").unwrap();
        assert_eq!(expected, seen, "{said}");
        assert!(seen.parse::<u32>().unwrap() >= 3, "{said}");
    }
    let evening = "| changes of Secrets beyond their rotations | 0 | 0 | as expected |";
    assert!(said.contains(evening), "{said}");
}
