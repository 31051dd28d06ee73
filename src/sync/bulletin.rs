//! What a replica was told by KMS and passes on: the one that a notice reaches is seldom the one that the object belongs
//! to. It stands as an annotation on the replica's own Lease, which the others watch anyway.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::alibaba::endpoint::is_region;
use crate::alibaba::notice::{Kind, Notice};
use crate::alibaba::secret_name::{SecretName, is_account};

/// So many notices are kept, which is far below what an annotation may hold...
const NOTICES_MAX: usize = 256;
/// ...for longer than the others may take to find out that a replica is dead.
const KEPT: Duration = Duration::from_secs(30);
/// No bulletin is longer: names, regions and accounts have a length.
const TEXT_MAX: usize = 128 * 1024;

/// The last notices, of each secret the last one.
#[derive(Debug, Default)]
pub struct Bulletin {
    posted: VecDeque<Posted>,
    last: u64,
}

#[derive(Debug)]
struct Posted {
    number: u64,
    at: Instant,
    notice: Notice,
}

/// A notice as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// Counts up; who has read this one has read all before it.
    n: u64,
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

impl Bulletin {
    /// Adds notices; answers how many had to go for them before their time.
    pub fn post(&mut self, notices: impl IntoIterator<Item = Notice>, now: Instant) -> usize {
        self.forget(now);
        for mut notice in notices {
            let is_same = |posted: &Posted| about(&posted.notice) == about(&notice);
            if let Some(at) = self.posted.iter().position(is_same)
                && let Some(before) = self.posted.remove(at)
                && before.notice.kind == Kind::RotationFailed
            {
                notice.kind = Kind::RotationFailed;
            }
            self.last += 1;
            self.posted.push_back(Posted {
                number: self.last,
                at: now,
                notice,
            });
        }
        let lost = self.posted.len().saturating_sub(NOTICES_MAX);
        self.posted.drain(..lost);
        lost
    }

    /// What it holds now.
    pub fn notices(&mut self, now: Instant) -> Vec<Notice> {
        self.forget(now);
        let posted = self.posted.iter();
        posted.map(|posted| posted.notice.clone()).collect()
    }

    /// What it holds now, as text; `None`: nothing.
    pub fn text(&mut self, now: Instant) -> Option<String> {
        self.forget(now);
        let lines: Vec<_> = self.posted.iter().map(Line::from).collect();
        (!lines.is_empty()).then(|| serde_json::to_string(&lines).unwrap_or_default())
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |posted: &Posted| now.saturating_duration_since(posted.at) >= KEPT;
        while self.posted.front().is_some_and(is_old) {
            self.posted.pop_front();
        }
    }
}

/// Which secret a notice is about.
fn about(notice: &Notice) -> (&str, Option<&str>, Option<&str>) {
    let (region, account) = (notice.region.as_deref(), notice.account.as_deref());
    (&notice.secret_name, region, account)
}

impl From<&Posted> for Line {
    fn from(posted: &Posted) -> Self {
        let notice = &posted.notice;
        Self {
            n: posted.number,
            secret: notice.secret_name.clone(),
            region: notice.region.clone(),
            account: notice.account.clone(),
            failed: notice.kind == Kind::RotationFailed,
        }
    }
}

impl Line {
    /// The notice, if it is one that a bulletin can hold.
    fn notice(self) -> Option<Notice> {
        let is_name = SecretName::parse(&self.secret).is_some_and(|name| name.name == self.secret);
        let is_right =
            |value: &Option<String>, is_one: fn(&str) -> bool| value.as_deref().is_none_or(is_one);
        let is_notice =
            is_name && is_right(&self.region, is_region) && is_right(&self.account, is_account);
        is_notice.then_some(Notice {
            event_id: None,
            region: self.region,
            account: self.account,
            secret_name: self.secret,
            kind: if self.failed {
                Kind::RotationFailed
            } else {
                Kind::Changed
            },
        })
    }
}

/// How far the bulletins of others have been read, by Lease.
#[derive(Debug, Default)]
pub struct Bookmarks(HashMap<String, (String, u64)>);

impl Bookmarks {
    /// What is new on the bulletin of a Lease; numbers begin anew with each holder.
    pub fn news(&mut self, lease: &str, holder: &str, text: &str) -> Vec<Notice> {
        if text.len() > TEXT_MAX {
            return Vec::new();
        }
        let lines: Vec<Line> = serde_json::from_str(text).unwrap_or_default();
        let read = self.0.entry(lease.to_owned()).or_default();
        if read.0 != holder {
            *read = (holder.to_owned(), 0);
        }
        let new = lines.into_iter().filter(|line| line.n > read.1);
        let new: Vec<_> = new.take(NOTICES_MAX).collect();
        read.1 = new.iter().map(|line| line.n).fold(read.1, u64::max);
        new.into_iter().filter_map(Line::notice).collect()
    }

    /// Forgets Leases that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|lease, _| is_there(lease));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn notice(secret_name: &str, kind: Kind) -> Notice {
        Notice {
            event_id: None,
            region: Some("cn-hangzhou".into()),
            account: None,
            secret_name: secret_name.into(),
            kind,
        }
    }

    fn changed(secret_name: &str) -> Notice {
        notice(secret_name, Kind::Changed)
    }

    #[test]
    fn what_is_new_is_read_once() {
        let (mut bulletin, mut marks, now) =
            (Bulletin::default(), Bookmarks::default(), Instant::now());
        assert_eq!(bulletin.text(now), None);
        bulletin.post([changed("a"), notice("b", Kind::RotationFailed)], now);
        let text = bulletin.text(now).unwrap();
        let both = vec![changed("a"), notice("b", Kind::RotationFailed)];
        assert_eq!(marks.news("lease", "h", &text), both);
        assert_eq!(marks.news("lease", "h", &text), []);
        bulletin.post([changed("a")], now);
        let text = bulletin.text(now).unwrap();
        assert_eq!(marks.news("lease", "h", &text), [changed("a")]);
        assert_eq!(marks.news("another", "h", &text).len(), 2);
        let again = marks.news("lease", "restarted", &text);
        assert_eq!(again.len(), 2, "a new process counts from the start");
        marks.retain(|_| false);
        assert_eq!(marks.news("lease", "restarted", &text).len(), 2);
    }

    #[test]
    fn of_one_secret_the_last_word_stands_and_a_failure_is_not_forgotten() {
        let (mut bulletin, now) = (Bulletin::default(), Instant::now());
        bulletin.post([notice("a", Kind::RotationFailed), changed("b")], now);
        bulletin.post([changed("a")], now);
        let is = bulletin.notices(now);
        assert_eq!(is, [changed("b"), notice("a", Kind::RotationFailed)]);
        let mut elsewhere = changed("b");
        elsewhere.region = Some("cn-beijing".into());
        bulletin.post([elsewhere], now);
        assert_eq!(bulletin.notices(now).len(), 3);
    }

    #[test]
    fn it_is_bounded_in_number_and_time() {
        let (mut bulletin, now) = (Bulletin::default(), Instant::now());
        let many = |from: usize, to: usize| (from..to).map(|n| changed(&format!("s{n}")));
        assert_eq!(bulletin.post(many(0, 256), now), 0);
        assert_eq!(bulletin.post(many(256, 300), now), 44);
        assert_eq!(bulletin.notices(now)[0], changed("s44"));
        let long = changed(&"n".repeat(192));
        let longest = |n: usize| Notice {
            secret_name: format!("{n:03}{}", &long.secret_name[3..]),
            account: Some("1".repeat(20)),
            ..long.clone()
        };
        bulletin.post((0..256).map(longest), now);
        assert!(bulletin.text(now).unwrap().len() < TEXT_MAX);
        assert_eq!(bulletin.notices(now + KEPT), []);
    }

    #[test]
    fn nothing_but_names_is_taken_from_another() {
        let mut marks = Bookmarks::default();
        for text in [
            "",
            "{}",
            "no JSON",
            r#"[{"n": 1}]"#,
            r#"[{"n": 1, "secret": "a b"}]"#,
            r#"[{"n": 1, "secret": "acs:kms:cn-hangzhou:1:secret/a"}]"#,
            r#"[{"n": 1, "secret": "a", "region": "../.."}]"#,
            r#"[{"n": 1, "secret": "a", "account": "me"}]"#,
        ] {
            assert_eq!(marks.news(text, "h", text), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_posted_is_read_by_all(steps in prop::collection::vec("[a-z/]{1,8}", 1..40)) {
            let (mut bulletin, mut marks, now) = (Bulletin::default(), Bookmarks::default(), Instant::now());
            for name in steps.iter().filter(|name| SecretName::parse(name).is_some()) {
                bulletin.post([changed(name)], now);
                let news = marks.news("lease", "h", &bulletin.text(now).unwrap());
                prop_assert_eq!(news, [changed(name)]);
            }
        }
    }
}
