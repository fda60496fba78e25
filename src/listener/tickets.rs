//! Session tickets, with which a client continues a session at any worker, and at any instance that has the same keys.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

use crate::config::TlsSettings;
use crate::ticket_keys::{self, TicketKey};
use crate::tls::TlsError;

/// How long a ticket is good for, as rustls has it: 12 hours.
const LIFETIME_SECS: u32 = 12 * 60 * 60;
/// Clocks of instances may differ by so much.
const MAX_CLOCK_SKEW_SECS: u64 = 5 * 60;

const NAME_BYTES: usize = 16;
/// In front of the nonce: the name of the key and the second of issue, both authenticated.
const HEAD_BYTES: usize = NAME_BYTES + 8;

/// What seals tickets with the keys of `tls.ticket_keys`; `None` if no file is named.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn shared(settings: &TlsSettings) -> Result<Option<Arc<dyn ProducesTickets>>, TlsError> {
    let Some(file) = &settings.ticket_keys else { return Ok(None) };
    let keys = ticket_keys::read(file).map_err(|reason| TlsError::pem(file, reason))?;
    let tickets = SharedTickets::new(&keys).ok_or_else(|| TlsError::pem(file, "holds a key that can't be used"))?;
    Ok(Some(Arc::new(tickets)))
}

/// Tickets under keys that other instances have, too: `name | second of issue | nonce | sealed state`. Nonces are random, and
/// no process knows how many tickets the others made: GCM-SIV (RFC 8452) stands nonces that repeat.
#[derive(Debug)]
struct SharedTickets {
    /// The first seals; each opens.
    keys: Vec<NamedKey>,
}

#[derive(Debug)]
struct NamedKey {
    name: [u8; NAME_BYTES],
    key: RandomizedNonceKey,
}

impl SharedTickets {
    /// `None` if a key is none of AES-256, which its type rules out.
    fn new(keys: &[TicketKey]) -> Option<Self> {
        let named = |TicketKey { name, secret }: &TicketKey| {
            Some(NamedKey { name: *name, key: RandomizedNonceKey::new(&AES_256_GCM_SIV, secret).ok()? })
        };
        Some(Self { keys: keys.iter().map(named).collect::<Option<_>>()? })
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let NamedKey { name, key } = self.keys.first()?;
        let mut head = [0; HEAD_BYTES];
        head[..NAME_BYTES].copy_from_slice(name);
        head[NAME_BYTES..].copy_from_slice(&now.to_be_bytes());
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(&head), &mut sealed).ok()?;
        Some([&head[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (head, rest) = ticket.split_first_chunk::<HEAD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (name, issued) = head.split_first_chunk::<NAME_BYTES>()?;
        let issued = u64::from_be_bytes(issued.try_into().ok()?);
        let is_fresh =
            now.saturating_sub(issued) < u64::from(LIFETIME_SECS) && issued.saturating_sub(now) <= MAX_CLOCK_SKEW_SECS;
        let NamedKey { key, .. } = self.keys.iter().find(|key| key.name == *name).filter(|_| is_fresh)?;
        let mut state = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(head), &mut state).ok()?.len();
        state.truncate(length);
        Some(state)
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, unix_seconds())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, unix_seconds())
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const STATE: &[u8] = b"the state of a session";

    fn tickets(bytes: &[u8]) -> SharedTickets {
        let key = |byte: &u8| TicketKey { name: [*byte; 16], secret: [*byte; 32] };
        SharedTickets::new(&bytes.iter().map(key).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_holder_of_the_key_opens_the_ticket() {
        let ticket = tickets(&[2, 1]).seal(STATE, NOW).unwrap();
        assert_eq!(tickets(&[2]).open(&ticket, NOW).as_deref(), Some(STATE), "the first key seals");
        assert_eq!(tickets(&[3, 2, 1]).open(&ticket, NOW).as_deref(), Some(STATE), "each key opens");
        assert_eq!(tickets(&[1, 3]).open(&ticket, NOW), None);
        // The name alone opens nothing.
        let impostor = SharedTickets::new(&[TicketKey { name: [2; 16], secret: [9; 32] }]).unwrap();
        assert_eq!(impostor.open(&ticket, NOW), None);
        assert_ne!(tickets(&[2]).seal(STATE, NOW).unwrap(), ticket, "nonces are random");
    }

    #[test]
    fn a_ticket_ends_after_twelve_hours() {
        let tickets = tickets(&[1]);
        let ticket = tickets.seal(STATE, NOW).unwrap();
        let lifetime = u64::from(LIFETIME_SECS);
        assert!(tickets.open(&ticket, NOW + lifetime - 1).is_some());
        assert!(tickets.open(&ticket, NOW + lifetime).is_none());
        assert!(tickets.open(&ticket, NOW - MAX_CLOCK_SKEW_SECS).is_some());
        assert!(tickets.open(&ticket, NOW - MAX_CLOCK_SKEW_SECS - 1).is_none());
    }

    #[test]
    fn no_changed_or_shortened_ticket_opens() {
        let tickets = tickets(&[1]);
        let ticket = tickets.seal(STATE, NOW).unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.open(&ticket[..length], NOW), None, "{length} bytes");
        }
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.open(&changed, NOW), None, "byte {index}");
        }
    }
}
