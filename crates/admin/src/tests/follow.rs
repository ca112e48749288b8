//! Following: what is new, what was missed, and how it ends.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::place::{Place, Set, authorization, row, soon};
use crate::plane::FOLLOWERS;

/// A follower's end of the stream.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    async fn open(place: &Place, query: &str, headers: &str) -> Self {
        let request = format!(
            "GET /api/v1/logs/follow{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n{headers}\r\n",
            authorization()
        );
        let mut events = Self { stream: place.connect(&request).await, text: String::new() };
        while !events.text.contains("\r\n\r\n") {
            assert!(events.read().await, "{}", events.text);
        }
        let (head, rest) = events.text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        events.text = rest.to_owned();
        events
    }

    /// Whether there was more.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = soon(self.stream.read(&mut bytes)).await.unwrap_or(0);
        // Chunk sizes stand on lines of their own, which no field begins like.
        self.text.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        count > 0
    }

    /// The next event: its name, its id, its data. `None` at the end.
    async fn next(&mut self) -> Option<(String, Option<String>, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                let found = field("event").map(|name| {
                    let data = field("data").and_then(|data| serde_json::from_str(&data).ok());
                    (name, field("id"), data.unwrap_or(Value::Null))
                });
                self.text = rest.to_owned();
                if found.is_some() {
                    return found;
                }
            } else if !self.read().await {
                return None;
            }
        }
    }

    async fn expect_row(&mut self, seq: i64) {
        let (event, id, data) = self.next().await.expect("an event");
        assert_eq!((event.as_str(), id, &data["seq"]), ("log", Some(seq.to_string()), &json!(seq)));
    }
}

#[tokio::test]
async fn a_new_row_is_an_event_and_an_old_one_is_not() {
    let place = Place::new(Set::default()).await;
    place.log.add(|_| ());
    let mut events = Events::open(&place, "", "").await;
    place.log.add(|_| ());
    let (event, id, data) = events.next().await.expect("an event");
    assert_eq!((event.as_str(), id.as_deref()), ("log", Some("2")));
    assert_eq!(data, serde_json::to_value(row(2)).expect("JSON"), "as in the list");
    place.end().await;
    assert_eq!(events.next().await, None, "it ends with the plane");
}

#[tokio::test]
async fn filters_hold_for_stored_and_new_rows() {
    let place = Place::new(Set::default()).await;
    let other = |row: &mut magicapi_kernel::LogRow| row.provider = Some("openai".into());
    place.log.add(|_| ());
    place.log.add(other);
    let mut events = Events::open(&place, "?provider=openai&since=0", "").await;
    events.expect_row(2).await;
    place.log.add(|_| ());
    place.log.add(other);
    events.expect_row(4).await;
}

#[tokio::test]
async fn it_resumes_after_an_event_or_a_time_without_gap_or_repeat() {
    let place = Place::new(Set::default()).await;
    (0..7).for_each(|_| place.log.add(|_| ()));
    let mut by_id = Events::open(&place, "", "Last-Event-ID: 2\r\n").await;
    for seq in 3..=7 {
        by_id.expect_row(seq).await;
    }
    let mut by_time = Events::open(&place, "?since=5000", "").await;
    for seq in 5..=7 {
        by_time.expect_row(seq).await;
    }
    let mut both = Events::open(&place, "?since=1000", "Last-Event-ID: 6\r\n").await;
    both.expect_row(7).await;
    // Kept from another log that was longer.
    let mut beyond = Events::open(&place, "", "Last-Event-ID: 1000\r\n").await;
    place.log.add(|_| ());
    for events in [&mut by_id, &mut by_time, &mut both, &mut beyond] {
        events.expect_row(8).await;
    }
}

#[tokio::test]
async fn who_is_too_slow_is_told_how_much_went_by() {
    let place = Place::new(Set::default()).await;
    let mut events = Events::open(&place, "", "").await;
    place.log.add(|_| ());
    events.expect_row(1).await;
    // The row may still have come from the stored ones, and the look after it be under way on another thread; nothing
    // shows from outside when that has ended.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    // This test has one thread: the plane's side cannot read between these.
    (0..10).for_each(|_| place.log.add(|_| ()));
    let (event, id, data) = events.next().await.expect("an event");
    assert_eq!((event.as_str(), id, data), ("lag", None, json!({ "missed": 6, "position": 1 })));
    for seq in 8..=11 {
        events.expect_row(seq).await;
    }
}

#[tokio::test]
async fn a_log_that_breaks_is_said_last() {
    let place = Place::new(Set::default()).await;
    (0..3).for_each(|_| place.log.add(|_| ()));
    *place.log.pages_left.lock().expect("pages") = Some(1);
    let mut events = Events::open(&place, "?since=0", "").await;
    events.expect_row(1).await;
    events.expect_row(2).await;
    let (event, _, data) = events.next().await.expect("an event");
    assert_eq!((event.as_str(), &data["error"]["message"]), ("error", &json!("x.db: damaged")));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn followers_are_bounded_and_one_that_leaves_makes_room() {
    let place = Place::new(Set::default()).await;
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS {
        followers.push(Events::open(&place, "", "").await);
    }
    let refused = place.get("/api/v1/logs/follow").await;
    assert_eq!((refused.status, refused.refusal().0.as_str()), (503, "too_many_followers"));
    followers.pop();
    soon(async {
        loop {
            let request =
                format!("GET /api/v1/logs/follow HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n", authorization());
            let mut bytes = [0; 12];
            place.connect(&request).await.read_exact(&mut bytes).await.expect("a head");
            if bytes.ends_with(b"200") {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_makes_no_sense_for_following_is_refused() {
    let place = Place::new(Set::default()).await;
    for (query, says) in [
        ("?limit=5", "`limit` is for lists"),
        ("?cursor=1-2", "`cursor` is for lists"),
        ("?until=5", "`until` is for lists"),
        ("?providr=x", "`provider`"),
    ] {
        let refused = place.get(&format!("/api/v1/logs/follow{query}")).await;
        let (code, message) = refused.refusal();
        assert_eq!((refused.status, code.as_str()), (400, "unknown_parameter"), "{query}");
        assert!(message.contains(says), "{message}");
    }
    let refused = place.send("GET", "/api/v1/logs/follow", &[&authorization(), "Last-Event-ID: x"]).await;
    assert_eq!((refused.status, refused.refusal().0.as_str()), (400, "invalid_parameter"));
}
