use bytes::Bytes;
use proptest::prelude::*;

use super::{Event, Framer, HEARTBEAT, Verdict};

/// What a judge may see of an event, without what depends on the split.
type Seen = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>, bool, bool, bool);

fn seen(event: &Event<'_>) -> Seen {
    (
        event.name.map(<[u8]>::to_vec),
        event.id.map(<[u8]>::to_vec),
        event.data.to_vec(),
        event.has_data,
        event.is_comment_only,
        event.oversize,
    )
}

fn run(chunks: &[&[u8]], most: usize, verdict: impl Fn(&Event<'_>) -> Verdict) -> (Vec<u8>, Vec<Seen>) {
    let mut framer = Framer::new(most);
    let (mut out, mut events) = (Vec::new(), Vec::new());
    let mut judge = |event: &Event<'_>| {
        events.push(seen(event));
        verdict(event)
    };
    for chunk in chunks {
        let relayed = framer.relay(Bytes::copy_from_slice(chunk), &mut judge);
        out.extend_from_slice(&relayed.bytes);
        assert!(framer.buffered() <= most);
    }
    let rest = framer.finish(&mut judge);
    out.extend_from_slice(&rest.bytes);
    (out, events)
}

fn forward(_: &Event<'_>) -> Verdict {
    Verdict::Forward
}

/// Every split in two, and one byte at a time.
fn all_splits(
    stream: &[u8],
    most: usize,
    verdict: impl Fn(&Event<'_>) -> Verdict + Copy,
) -> (Vec<u8>, Vec<Seen>) {
    let whole = run(&[stream], most, verdict);
    for at in 0..=stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(run(&[left, right], most, verdict), whole, "split at {at}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(run(&bytes, most, verdict), whole, "byte by byte");
    whole
}

fn datas(events: &[Seen]) -> Vec<String> {
    events
        .iter()
        .filter(|event| event.3)
        .map(|event| String::from_utf8_lossy(&event.2).into_owned())
        .collect()
}

#[test]
fn the_grammar_holds_at_every_split() {
    for (stream, expected) in [
        ("data: a\n\ndata:b\n\n", vec!["a", "b"]),
        ("data: a\r\n\r\ndata:  b\r\n\r\n", vec!["a", " b"]),
        ("data: a\r\rdata: b\r\r", vec!["a", "b"]),
        ("data: a\r\n\ndata: b\n\r\n", vec!["a", "b"]),
        ("data: a\r\r\ndata: b\r\n\r", vec!["a", "b"]),
        ("\u{feff}data: a\n\ndata: b\n\n", vec!["a", "b"]),
        ("\u{feff}\n\ndata: b\n\n", vec!["b"]),
        ("data: a\ndata: b\r\ndata\n\n", vec!["a\nb\n"]),
        ("event: x\nid: 7\nretry: 9\ndata: é漢字🎉\n\n", vec!["é漢字🎉"]),
        (": hello\n\n: x\ndata: a\n\n\n\n", vec!["a"]),
        ("data: whole\n\ndata: no blank line", vec!["whole", "no blank line"]),
        ("data: a\n\ndata: b\n", vec!["a", "b"]),
        ("retry: 3\n\nevent: e\n\ndata:\n\n", vec![""]),
        ("", vec![]),
    ] {
        let (out, events) = all_splits(stream.as_bytes(), 1 << 20, forward);
        assert_eq!(out, stream.as_bytes(), "{stream:?}");
        assert_eq!(datas(&events), expected, "{stream:?}");
    }
}

#[test]
fn fields_are_told_apart() {
    let (_, events) = run(&[b"event: x\nid:7\ndata: d\n\n:c\n\nevent\n\n\n"], 99, forward);
    assert_eq!(events[0], (Some(b"x".to_vec()), Some(b"7".to_vec()), b"d".to_vec(), true, false, false));
    assert_eq!((events[1].4, events[1].3), (true, false));
    assert_eq!((events[2].0.as_deref(), events[2].4), (Some(&b""[..]), false));
    assert_eq!((events[3].4, events[3].3), (false, false));
}

#[test]
fn a_chunk_of_whole_events_is_given_back_itself() {
    let mut framer = Framer::new(1024);
    let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\n");
    let relayed = framer.relay(chunk.clone(), forward);
    assert_eq!((relayed.bytes.as_ptr(), relayed.bytes.len()), (chunk.as_ptr(), chunk.len()));
    let chunk = Bytes::from_static(b"data: c\n\ndata: d");
    let relayed = framer.relay(chunk.clone(), forward);
    assert_eq!((relayed.bytes.as_ptr(), relayed.bytes.len()), (chunk.as_ptr(), 9));
    assert_eq!(framer.buffered(), 7);
}

#[test]
fn dropped_and_replaced_events_leave_no_trace() {
    let verdict = |event: &Event<'_>| match &*event.data {
        b"drop" => Verdict::Drop,
        b"swap" => Verdict::Replace(Bytes::from_static(b"data: new\n\n")),
        _ => Verdict::Forward,
    };
    let stream = b"data: a\n\ndata: drop\n\ndata: b\n\ndata: swap\n\ndata: drop\r\n\r\ndata: c\r\r\n";
    let (out, _) = all_splits(stream, 1024, verdict);
    assert_eq!(out, b"data: a\n\ndata: b\n\ndata: new\n\ndata: c\r\r\n");
    let (out, _) = all_splits(b"data: drop\r\n\r\ndata: drop\n\n", 1024, verdict);
    assert_eq!(out, b"");
}

#[test]
fn an_oversize_event_passes_and_the_next_one_is_found() {
    let big = "x".repeat(50);
    for end in ["\n", "\r\n", "\r"] {
        let stream = format!("event: big{end}data: {big}{end}data: y{end}{end}data: small{end}{end}");
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        let (out, events) = run(&bytes, 20, forward);
        assert_eq!(out, stream.as_bytes());
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!((events[0].0.as_deref(), events[0].5), (Some(&b"big"[..]), true));
        assert_eq!((&events[1].2[..], events[1].5), (&b"small"[..], false));
    }
    let mut framer = Framer::new(8);
    assert!(framer.between_events());
    let relayed = framer.relay(Bytes::from_static(b"data: 123456789"), forward);
    assert!(relayed.oversize && !framer.between_events() && framer.buffered() == 0);
    assert_eq!(framer.finish(forward).missing_end, b"\n\n");
    assert!(framer.between_events());
}

#[test]
fn an_event_that_is_set_aside_is_read_although_it_has_passed() {
    let big = "x".repeat(50);
    for end in ["\n", "\r\n", "\r"] {
        let event = format!("\u{feff}event: big{end}data: {big}{end}data: y{end}{end}");
        let stream = format!("{event}data: small{end}{end}");
        for (most_read, unread) in [(event.len(), false), (event.len() - 3, true)] {
            for size in [1, 7] {
                let mut framer = Framer::new(20).reading(most_read);
                let (mut seen, mut held) = (Vec::new(), 0);
                let mut judge = |event: &Event<'_>| {
                    seen.push((event.data.to_vec(), event.name.map(<[u8]>::to_vec), event.unread));
                    Verdict::Drop
                };
                for piece in stream.as_bytes().chunks(size) {
                    framer.relay(Bytes::copy_from_slice(piece), &mut judge);
                    held = held.max(framer.aside());
                }
                let data = if unread { String::new() } else { format!("{big}\ny") };
                assert_eq!(seen[0], (data.into_bytes(), Some(b"big".to_vec()), unread), "{end:?} {size}");
                assert_eq!(seen[1].0, b"small");
                assert!(held <= 2 * most_read && framer.aside() == 0, "{held}");
            }
        }
    }
    let mut framer = Framer::new(8).reading(1 << 10);
    framer.relay(Bytes::from_static(b"data: 123456789"), forward);
    assert!(framer.aside() > 0);
    framer.forget();
    assert_eq!(framer.aside(), 0);
    framer.relay(Bytes::from_static(b"0\n\n"), |event| {
        assert!(event.unread && event.terminated);
        Verdict::Forward
    });
}

#[test]
fn the_end_says_what_is_missing() {
    for (stream, missing) in
        [("data: a", "\n\n"), ("data: a\n", "\n"), ("data: a\r", "\n"), ("data: a\n\n", "")]
    {
        let mut framer = Framer::new(99);
        framer.relay(Bytes::from(stream), forward);
        let end = framer.finish(|event| {
            assert!(!event.terminated);
            Verdict::Forward
        });
        assert_eq!(end.missing_end, missing.as_bytes(), "{stream:?}");
    }
    assert!(HEARTBEAT.starts_with(b":") && HEARTBEAT.ends_with(b"\n\n"));
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: [&[u8]; 14] = [
        b"data: ",
        b"data:",
        b"event: e",
        b"id",
        b":",
        b"\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"xyz",
        b" ",
        b"\xef\xbb\xbf",
    ];
    prop_oneof![
        prop::sample::select(pieces.to_vec()).prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 0..4)
    ]
}

proptest! {
    #[test]
    fn any_bytes_at_any_split(pieces in prop::collection::vec(piece(), 0..40), cuts in prop::collection::vec(1usize..9, 1..60), most in 1usize..40) {
        let stream = pieces.concat();
        let mut chunks: Vec<&[u8]> = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (left, right) = rest.split_at((*cut).min(rest.len()));
            chunks.push(left);
            rest = right;
        }
        // A small limit: bytes alone are the same, since what is oversize depends on the split.
        prop_assert_eq!(&run(&chunks, most, forward).0, &stream);
        let (out, events) = run(&chunks, 1 << 20, forward);
        prop_assert_eq!(&out, &stream);
        let (whole, expected) = run(&[&stream], 1 << 20, forward);
        prop_assert_eq!(&whole, &stream);
        prop_assert_eq!(events, expected);
        let pick = |event: &Event<'_>| if event.data.len().is_multiple_of(2) { Verdict::Drop } else { Verdict::Forward };
        prop_assert_eq!(run(&chunks, 1 << 20, pick), run(&[&stream], 1 << 20, pick));
    }
}
