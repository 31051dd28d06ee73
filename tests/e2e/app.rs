//! The application, which reads the mounted file and logs what it becomes.

use jiff::Timestamp;

use crate::stage::{APP, Stage};

/// A Pod that mounts the Secret.
pub(crate) struct App<'a> {
    stage: &'a Stage,
}

impl<'a> App<'a> {
    /// Starts it.
    pub(crate) fn start(stage: &'a Stage) -> Self {
        stage.apply(APP, include_str!("app.yaml"));
        stage.kubectl(&[
            "wait",
            "--namespace",
            APP,
            "--for=condition=Ready",
            "--timeout=60s",
            "pod/orders",
        ]);
        Self { stage }
    }

    /// When a value was in the file first.
    pub(crate) fn when(&self, password: &str) -> Option<Timestamp> {
        let lines = self.lines();
        let found = lines
            .iter()
            .find(|(_, seen)| seen.as_deref() == Some(password));
        found.map(|(at, _)| *at)
    }

    /// What the file holds now.
    pub(crate) fn last(&self) -> Option<String> {
        self.seen().pop().flatten()
    }

    /// Every value that the file has had, the oldest first; nothing where it was absent or empty.
    pub(crate) fn seen(&self) -> Vec<Option<String>> {
        self.lines().into_iter().map(|(_, seen)| seen).collect()
    }

    fn lines(&self) -> Vec<(Timestamp, Option<String>)> {
        let log = self
            .stage
            .kubectl(&["logs", "--namespace", APP, "--timestamps", "orders"]);
        log.lines()
            .map(|line| {
                let (at, password) = line.split_once(" password=").expect("a line of ours");
                let password = Some(password.to_owned()).filter(|text| !text.is_empty());
                (at.parse().unwrap(), password)
            })
            .collect()
    }
}
