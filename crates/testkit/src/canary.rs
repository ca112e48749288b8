//! Secrets that a test put somewhere, looked for in everything that came out.
//!
//! ```text
//! let mut canary = Canary::new([("provider key", KEY)]);
//! canary.look("the log", gateway.log().join("\\n"));
//! canary.look_below(&gateway.data_path(), &["admin.token"]);
//! canary.silent();
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

/// What compressed data begins with.
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];
const GZIP: &[u8] = &[0x1F, 0x8B, 0x08];

/// The secrets, and where they were seen.
pub struct Canary {
    secrets: Vec<(String, Vec<Vec<u8>>)>,
    seen: Vec<(String, String)>,
    looked: usize,
}

impl Canary {
    /// Secrets by what they are called in the report. Each is also looked for in base64, wherever it begins in what was
    /// coded, as behind the user of basic credentials; in hexadecimal; and as a list of bytes, as `Debug` writes it. Half
    /// of one is enough: a text may have been cut.
    ///
    /// # Panics
    /// When one is too short to be told from other text.
    pub fn new<'s>(secrets: impl IntoIterator<Item = (&'s str, &'s str)>) -> Self {
        let forms = |(name, secret): (&str, &str)| {
            assert!(secret.len() >= 12, "{name} is too short");
            let halves = if secret.len() >= 24 { secret.split_at(secret.len() / 2) } else { (secret, "") };
            let parts = [halves.0, halves.1].into_iter().filter(|part| !part.is_empty());
            (name.to_owned(), parts.flat_map(|part| forms(part.as_bytes())).collect())
        };
        Self { secrets: secrets.into_iter().map(forms).collect(), seen: Vec::new(), looked: 0 }
    }

    /// Looks for all of them in one thing, and in what is compressed within it.
    pub fn look(&mut self, place: &str, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.looked += bytes.len();
        for (name, forms) in &self.secrets {
            if let Some(at) = forms.iter().find_map(|form| memmem::find(bytes, form)) {
                let around = &bytes[at.saturating_sub(60)..bytes.len().min(at + 100)];
                let shown = format!("{name} in {place}: …{}…", String::from_utf8_lossy(around));
                self.seen.push((name.clone(), shown));
            }
        }
        for at in memmem::find_iter(bytes, ZSTD).chain(memmem::find_iter(bytes, GZIP)) {
            if let Some(plain) = unpacked(&bytes[at..]) {
                self.look(&format!("{place}, unpacked at {at}"), plain);
            }
        }
    }

    /// Looks into every file below a directory, but for those of these names.
    ///
    /// # Panics
    /// When a directory cannot be read.
    pub fn look_below(&mut self, directory: &Path, except: &[&str]) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if except.contains(&name.as_str()) {
                continue;
            }
            self.look("the name of a file", &name);
            if path.is_dir() {
                self.look_below(&path, except);
            } else {
                // A file may go between being listed and being read: a batch that was delivered.
                self.look(&path.display().to_string(), fs::read(&path).unwrap_or_default());
            }
        }
    }

    /// How many bytes were looked at, unpacked ones among them.
    pub fn looked(&self) -> usize {
        self.looked
    }

    /// What was seen, by name: for places in which the secrets have to be.
    pub fn names(&self) -> BTreeSet<&str> {
        self.seen.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Ends the search.
    ///
    /// # Panics
    /// When a secret was seen: with each place.
    pub fn silent(self) {
        let seen: Vec<&str> = self.seen.iter().map(|(_, shown)| shown.as_str()).collect();
        assert!(seen.is_empty(), "{}", seen.join("\n"));
    }
}

/// Everything by which a secret, or half of it, is known.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let in_base64 = (0..3).flat_map(|before| {
        let text = [&vec![0; before], secret].concat();
        // Characters in which a neighbour has a share are left out.
        let (first, cut) = (before + usize::from(before > 0), usize::from(!text.len().is_multiple_of(3)));
        [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]
            .map(|coded| coded.as_bytes()[first..coded.len() - cut].to_vec())
    });
    let hexadecimal = secret.iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
    let list = secret.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut forms: Vec<Vec<u8>> = in_base64.collect();
    forms.extend([secret.to_vec(), hexadecimal.into_bytes(), list.into_bytes()]);
    forms.sort();
    forms.dedup();
    forms
}

/// What one frame of compressed data holds; as much of it as can be read.
fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    if bytes.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::new(bytes).ok()?;
        let _cut = decoder.single_frame().read_to_end(&mut plain);
    } else if bytes.starts_with(GZIP) {
        let _cut = flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain);
    }
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Canary;

    const SECRET: &str = "c4n4ry-0123456789";

    fn sees(bytes: &[u8]) -> bool {
        let mut canary = Canary::new([("the key", SECRET)]);
        canary.look("here", bytes);
        canary.names() == BTreeSet::from(["the key"])
    }

    #[test]
    fn half_of_a_long_one_is_seen() {
        let sees = |text: &str| {
            let mut canary = Canary::new([("the key", "c4n4ry-0123456789-abcdef")]);
            canary.look("here", text);
            !canary.names().is_empty()
        };
        assert!(sees("cut: c4n4ry-012345") && sees("…56789-abcdef") && sees("YTo1Njc4OS1hYmNkZWY"));
        assert!(!sees("c4n4ry-0123") && !sees("6789-abcdef"));
    }

    #[test]
    fn secrets_are_seen_plain_coded_and_packed() {
        let within = format!("before {SECRET} after");
        assert!(sees(within.as_bytes()) && sees(SECRET.as_bytes()));
        assert!(!sees(b"before c4n4ry-012345678 after") && !sees(b""));
        // Alone, and behind `me:`, `you:` and `user:`, once with more behind it.
        assert!(sees(b"Basic YzRuNHJ5LTAxMjM0NTY3ODk=") && sees(b"Basic bWU6YzRuNHJ5LTAxMjM0NTY3ODk="));
        assert!(sees(b"Basic eW91OmM0bjRyeS0wMTIzNDU2Nzg5") && sees(b"eW91OmM0bjRyeS0wMTIzNDU2Nzg5IQ"));
        assert!(sees(b"Basic dXNlcjpjNG40cnktMDEyMzQ1Njc4OQ=="));
        assert!(
            sees(b"63346e3472792d30313233343536373839")
                && sees(format!("{:?}", SECRET.as_bytes()).as_bytes())
        );
        let packed = zstd::bulk::compress(within.as_bytes(), 1).expect("zstd");
        assert!(sees(&[b"MAGISPL\0", &packed[..], b"the next"].concat()));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, within.as_bytes()).expect("memory");
        assert!(sees(&gzip.finish().expect("memory")));
    }
}
