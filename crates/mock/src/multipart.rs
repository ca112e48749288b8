//! Just enough of `multipart/form-data` to say what arrived: plain fields, and size and name of the
//! file. Used by the transcription and file endpoints.

use memchr::memmem;

/// A form as far as the mock cares.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    /// Fields without a file name, in order.
    fields: Vec<(String, String)>,
    /// Name and size in bytes of the first file.
    pub(crate) file: Option<(String, u64)>,
}

impl Form {
    /// Reads a form; anything unreadable is left out.
    pub(crate) fn read(content_type: &str, body: &[u8]) -> Self {
        let mut form = Self::default();
        let Some(boundary) = parameter(content_type, "boundary") else { return form };
        let delimiter = format!("--{boundary}");
        let mut starts = memmem::find_iter(body, delimiter.as_bytes()).peekable();
        while let Some(start) = starts.next() {
            let end = starts.peek().copied().unwrap_or(body.len());
            let part = body.get(start + delimiter.len()..end).unwrap_or_default();
            form.part(part);
        }
        form
    }

    /// Value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn part(&mut self, part: &[u8]) {
        let Some(split) = memmem::find(part, b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(part.get(..split).unwrap_or_default()).into_owned();
        let value = part.get(split + 4..).unwrap_or_default();
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        let Some(line) = head.lines().find(|l| l.to_ascii_lowercase().starts_with("content-disposition"))
        else {
            return;
        };
        if let Some(file) = parameter(line, "filename") {
            self.file.get_or_insert((file, value.len() as u64));
        } else if let Some(name) = parameter(line, "name") {
            self.fields.push((name, String::from_utf8_lossy(value).into_owned()));
        }
    }
}

/// A parameter of a header value, with or without quotes.
fn parameter(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|p| {
        let (key, value) = p.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_and_file() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nab\r\n\x00c\r\n--b--\r\n";
        let form = Form::read("multipart/form-data; boundary=b", body);
        assert_eq!(form.field("model"), Some("whisper"));
        assert_eq!(form.file, Some(("a.wav".to_owned(), 6)));
    }
}
