//! What goes back on the wire.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde_json::{Map, Value};
use tokio::time::{Sleep, sleep};

const FILLER: &[u8] = &[b'A'; 64 * 1024];

/// A body that can be long, slow, or end too early.
pub(crate) struct Body {
    rest: Bytes,
    filler: u64,
    tail: Bytes,
    /// Bytes that are announced and never come.
    withheld: u64,
    flushed: bool,
    pace: Option<Pace>,
}

struct Pace {
    bytes: usize,
    every: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            rest: bytes.into(),
            filler: 0,
            tail: Bytes::new(),
            withheld: 0,
            flushed: false,
            pace: None,
        }
    }

    /// The first half, and then the connection ends.
    pub(crate) fn truncated(bytes: impl Into<Bytes>) -> Self {
        let mut body = Self::whole(bytes);
        let half = body.rest.len() / 2;
        body.withheld = (body.rest.len() - half).max(1) as u64;
        body.rest.truncate(half);
        body
    }

    pub(crate) fn dripping(bytes: impl Into<Bytes>, piece: usize, every: Duration) -> Self {
        let mut body = Self::whole(bytes);
        body.pace = Some(Pace {
            bytes: piece.max(1),
            every,
            sleep: None,
        });
        body
    }

    /// An answer with a value of that many bytes, made while it is sent.
    pub(crate) fn huge(bytes: u64) -> Self {
        let mut body = Self::whole(r#"{"SecretDataType":"text","SecretData":""#);
        body.filler = bytes;
        body.tail = Bytes::from_static(b"\"}");
        body
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() && self.filler == 0 {
            std::mem::swap(&mut self.rest, &mut self.tail);
        }
        if !self.rest.is_empty() {
            let most = self.pace.as_ref().map_or(usize::MAX, |pace| pace.bytes);
            return Some(self.rest.split_to(self.rest.len().min(most)));
        }
        if self.filler == 0 {
            return None;
        }
        let piece = usize::try_from(self.filler)
            .unwrap_or(usize::MAX)
            .min(FILLER.len());
        self.filler -= piece as u64;
        Some(Bytes::from_static(&FILLER[..piece]))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(pace) = &mut self.pace {
            let every = pace.every;
            let sleep = pace.sleep.get_or_insert_with(|| Box::pin(sleep(every)));
            ready!(sleep.as_mut().poll(cx));
            pace.sleep = None;
        }
        match self.next_piece() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            // A pause lets out what has been written; an error would throw it away.
            None if self.withheld > 0 && !self.flushed => {
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None if self.withheld > 0 => Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.filler == 0 && self.tail.is_empty() && self.withheld == 0
    }

    fn size_hint(&self) -> SizeHint {
        let ready = (self.rest.len() + self.tail.len()) as u64;
        SizeHint::with_exact(ready + self.filler + self.withheld)
    }
}

/// Writes an answer's fields in the form that the caller gets.
pub(crate) fn write(fields: &Map<String, Value>, json: bool, root: &str) -> (&'static str, String) {
    if json {
        let text = Value::from(fields.clone()).to_string();
        return ("application/json;charset=utf-8", text);
    }
    let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?>");
    write_element(&mut xml, root, &Value::from(fields.clone()));
    ("text/xml;charset=utf-8", xml)
}

/// A list is its element again and again.
fn write_element(xml: &mut String, name: &str, value: &Value) {
    if let Value::Array(items) = value {
        for item in items {
            write_element(xml, name, item);
        }
        return;
    }
    xml.extend(["<", name, ">"]);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                write_element(xml, name, value);
            }
        }
        Value::String(text) => xml.push_str(&escape(text)),
        Value::Null => {}
        other => xml.push_str(&other.to_string()),
    }
    xml.extend(["</", name, ">"]);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn xml_has_the_shape_of_the_documents() {
        let fields =
            json!({ "SecretData": "a<b&c", "VersionStages": { "VersionStage": ["x", "y"] } });
        let (_, xml) = write(fields.as_object().unwrap(), false, "GetSecretValueResponse");
        assert!(xml.contains("<SecretData>a&lt;b&amp;c</SecretData>"));
        assert!(xml.contains(
            "<VersionStages><VersionStage>x</VersionStage><VersionStage>y</VersionStage></VersionStages>"
        ));
    }
}
