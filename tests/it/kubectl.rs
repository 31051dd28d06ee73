//! kubectl, as people use it: the one of the test's cluster.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::World;

/// How a command ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its output, if it succeeded.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// Runs kubectl in the namespace of the test.
pub(crate) async fn kubectl(world: &World, words: &[&str], input: &str) -> Said {
    let words = [words, &["--namespace", &world.namespace]].concat();
    call(world, &words, input, None).await
}

/// Runs kubectl with these words alone; it finds its plugins in the folder.
pub(crate) async fn call(
    world: &World,
    words: &[&str],
    input: &str,
    plugins: Option<&Path>,
) -> Said {
    let mut command = match world.cluster.kubeconfig() {
        Some(file) => {
            let mut command = Command::new(file.with_file_name("kubectl"));
            command.env("KUBECONFIG", file);
            command
        }
        None => Command::new("kubectl"),
    };
    if let Some(plugins) = plugins {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(plugins.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).unwrap());
    }
    command
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}
