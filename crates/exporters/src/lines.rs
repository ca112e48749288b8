//! Lines of what another process says, of bounded length.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    limit: usize,
}

/// A line without its end.
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// The beginning of one that is too long; what follows comes as a line of its own.
    Cut(Vec<u8>),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), limit }
    }

    /// The next line; `None` at the end. What an unfinished call has read is not lost.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then_some(Line::Whole(rest)));
            }
            let room = self.limit - self.line.len();
            let end = available.iter().take(room + 1).position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(available.len()).min(room);
            self.line.extend(available.iter().take(taken));
            let is_full = end.is_none() && available.len() > room;
            self.reader.consume(if end.is_some() { taken + 1 } else { taken });
            if end.is_some() {
                return Ok(Some(Line::Whole(std::mem::take(&mut self.line))));
            }
            if is_full {
                return Ok(Some(Line::Cut(std::mem::take(&mut self.line))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Lines};

    #[tokio::test]
    async fn lines_are_bounded_and_none_is_lost() {
        let text = b"one\n\n1234567890\n12345678901234\nend";
        for step in [1, 3, 100] {
            let pieces = in_pieces(text, step);
            let mut lines = Lines::new(pieces, 10);
            let mut found = Vec::new();
            while let Some(line) = lines.next().await.expect("no error") {
                found.push(match line {
                    Line::Whole(line) => (true, String::from_utf8(line).expect("text")),
                    Line::Cut(line) => (false, String::from_utf8(line).expect("text")),
                });
            }
            let expected = [
                (true, "one"),
                (true, ""),
                (true, "1234567890"),
                (false, "1234567890"),
                (true, "1234"),
                (true, "end"),
            ];
            assert_eq!(found, expected.map(|(whole, text)| (whole, text.to_owned())), "{step}");
        }
    }

    /// Gives the text in pieces of this length.
    fn in_pieces(text: &'static [u8], step: usize) -> impl tokio::io::AsyncRead + Unpin {
        let (mut ours, theirs) = tokio::io::duplex(step);
        tokio::spawn(async move {
            let _written = tokio::io::AsyncWriteExt::write_all(&mut ours, text).await;
        });
        theirs
    }
}
