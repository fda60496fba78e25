//! All output of the programs, and the secrets that must not be in it.

use callgate::tokens::TokenHash;

/// All that was heard, and the marks that nobody may hear.
#[derive(Default)]
pub(super) struct Evidence {
    /// The name of each secret, and its text.
    secrets: Vec<(String, String)>,
    hashes: Vec<(String, String)>,
    /// Where it was heard, the text, and whether hashes may be in it.
    received: Vec<(String, String, bool)>,
}

impl Evidence {
    /// From now on nobody may hear this secret, nor any form of it.
    pub(super) fn hide(&mut self, name: &str, secret: &str) {
        let mut add = |form: &str, text: String| self.secrets.push((format!("{name} ({form})"), text));
        add("itself", secret.to_owned());
        add("base64", base64(secret));
        if let Some(body) = secret.strip_prefix("kal_live_") {
            add("its secret part", body[12..39].to_owned());
            add("half of its secret part", body[12..26].to_owned());
        }
        if let Some((_, behind)) = secret.split_once('|') {
            add("behind the bar", behind.to_owned());
            self.hide_hash(&format!("{name} behind the bar"), &TokenHash::of(behind).to_hex());
        }
        self.hide_hash(name, &TokenHash::of(secret).to_hex());
    }

    fn hide_hash(&mut self, name: &str, hex: &str) {
        self.hashes.push((format!("the hash of {name}"), hex.to_owned()));
        self.hashes.push((format!("a part of the hash of {name}"), hex[..20].to_owned()));
    }

    /// Something that came out.
    pub(super) fn record(&mut self, place: &str, text: &str) {
        self.received.push((place.to_owned(), text.to_owned(), false));
    }

    /// The stored tokens: a place where their hashes belong.
    pub(super) fn record_store(&mut self, place: &str, text: &str) {
        self.received.push((place.to_owned(), text.to_owned(), true));
    }

    /// Fails with every leak that there is.
    pub(super) fn judge(&self) {
        let bytes: usize = self.received.iter().map(|(_, text, _)| text.len()).sum();
        println!("{} texts, {bytes} bytes, searched for {} marks", self.received.len(), self.marks(false).count());
        assert!(self.received.len() > 100 && bytes > 100_000, "next to nothing was heard");
        let mut leaks = Vec::new();
        for (place, text, is_store) in &self.received {
            let lower = text.to_lowercase();
            for (name, mark) in self.marks(*is_store) {
                if let Some(at) = text.find(mark.as_str()).or_else(|| lower.find(&mark.to_lowercase())) {
                    let before: String =
                        text[..at].chars().rev().take(120).collect::<Vec<_>>().into_iter().rev().collect();
                    leaks.push(format!("{place}: {name} behind {before:?}"));
                }
            }
        }
        leaks.sort();
        leaks.dedup();
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    }

    fn marks(&self, is_store: bool) -> impl Iterator<Item = &(String, String)> {
        let hashes: &[_] = if is_store { &[] } else { &self.hashes };
        self.secrets.iter().chain(hashes)
    }
}

/// A text as Basic authentication would send it, without what fills it up.
pub(super) fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = text.as_bytes().chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len()).map(move |at| char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]))
    });
    groups.collect()
}

#[test]
fn a_leak_is_found() {
    assert_eq!(base64("any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
    let token = "kal_live_0123456789AB0123456789ABCDEFGHIJKLMNOPQ1eHJcq";
    let hash = TokenHash::of(token).to_hex();
    for leak in [token, "xx0123456789ABCDEFGHIJKLMNOPQyy", &hash, &hash.to_uppercase(), &hash[..20]] {
        let mut evidence = Evidence::default();
        evidence.hide("a token", token);
        (0..200).for_each(|_| evidence.record("here", &"x".repeat(1_000)));
        evidence.judge();
        evidence.record("there", &format!("before {leak} behind"));
        assert!(std::panic::catch_unwind(|| evidence.judge()).is_err(), "{leak}");
    }
    let mut evidence = Evidence::default();
    evidence.hide("a token", token);
    (0..200).for_each(|_| evidence.record_store("here", &format!("{hash}{}", "x".repeat(1_000))));
    evidence.judge();
}
