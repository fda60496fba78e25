//! Which slot of a Redis Cluster a key lies in, and which node a slot lies on.

use std::sync::Arc;

use redis::{Arg, Cmd, Value};

use crate::config::RedisNode;

/// The number of slots of every cluster.
pub(super) const SLOTS: usize = 16_384;

/// The slot of a key: CRC-16 (XMODEM) of what is in its first pair of braces, or of all of it.
///
/// Source: the Redis Cluster specification, "Hash tags".
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &rest[..length])
    });
    let crc =
        tag.unwrap_or(key).iter().fold(0u16, |crc, byte| crc << 8 ^ CRC16[usize::from(crc >> 8) ^ usize::from(*byte)]);
    crc % SLOTS as u16
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The first key of a command that names it first, as those do that Callgate sends; `None`: it has none.
pub(super) fn key_of_command(command: &Cmd) -> Option<&[u8]> {
    const KEYLESS: [&[u8]; 10] =
        [b"PING", b"TIME", b"SCRIPT", b"INFO", b"CONFIG", b"DBSIZE", b"CLUSTER", b"CLIENT", b"ROLE", b"SCAN"];
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(bytes) => bytes,
        _ => &[],
    });
    let name = words.next()?;
    if name.eq_ignore_ascii_case(b"EVALSHA") || name.eq_ignore_ascii_case(b"EVAL") {
        return words.nth(1).filter(|count| **count != *b"0").and_then(|_| words.next());
    }
    if KEYLESS.iter().any(|keyless| keyless.eq_ignore_ascii_case(name)) {
        return None;
    }
    if name.eq_ignore_ascii_case(b"MEMORY") {
        // MEMORY USAGE key
        return words.nth(1);
    }
    words.next()
}

/// A range of slots and the primary that serves it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) node: RedisNode,
}

/// Reads the answer to CLUSTER SLOTS that `asked` gave. A node whose address it doesn't know is reached like itself.
pub(super) fn read_slots(answer: &Value, asked: &RedisNode) -> Option<Vec<SlotRange>> {
    let Value::Array(rows) = answer else { return None };
    rows.iter().map(|row| read_row(row, asked)).collect()
}

fn read_row(row: &Value, asked: &RedisNode) -> Option<SlotRange> {
    let Value::Array(row) = row else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &row[..] else { return None };
    let [host, Value::Int(port), ..] = &primary[..] else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::Nil => "",
        _ => return None,
    };
    let slot = |number: &i64| u16::try_from(*number).ok().filter(|slot| usize::from(*slot) < SLOTS);
    let node = RedisNode { host: host_or(host, asked), port: u16::try_from(*port).ok()? };
    Some(SlotRange { first: slot(first)?, last: slot(last)?, node })
}

/// Reads the address of a redirection (`10.0.0.7:6379`, `::1:6379`, `:6379`) that `asked` gave.
pub(super) fn read_address(address: &str, asked: &RedisNode) -> Option<RedisNode> {
    let (host, port) = address.rsplit_once(':')?;
    Some(RedisNode { host: host_or(host, asked), port: port.parse().ok()? })
}

fn host_or(host: &str, asked: &RedisNode) -> Arc<str> {
    if host.is_empty() || host == "?" { asked.host.clone() } else { Arc::from(host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> RedisNode {
        RedisNode { host: host.into(), port }
    }

    #[test]
    fn keys_have_the_slots_of_the_specification() {
        // 0x31C3 is the specification's own example; the others are what CLUSTER KEYSLOT says.
        for (key, slot) in [
            ("123456789", 0x31C3),
            ("foo", 12182),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn a_command_lies_where_its_first_key_does() {
        let slot = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            key_of_command(&command).map(slot_of)
        };
        assert_eq!(slot(&["HMGET", "foo", "version"]), Some(12182));
        assert_eq!(slot(&["EVALSHA", "abc", "2", "{foo}:a", "{foo}:b", "1"]), Some(12182));
        assert_eq!(slot(&["EVAL", "return 1", "0"]), None);
        assert_eq!(slot(&["PING"]), None);
        assert_eq!(slot(&["script", "LOAD", "return 1"]), None);
    }

    #[test]
    fn reads_what_nodes_say() {
        let asked = node("10.0.0.1", 6379);
        let primary = |host: Value| Value::Array(vec![host, Value::Int(7000), Value::SimpleString("id".into())]);
        let row = |host| Value::Array(vec![Value::Int(0), Value::Int(16383), primary(host)]);
        let read = |host| read_slots(&Value::Array(vec![row(host)]), &asked).unwrap().remove(0).node;
        assert_eq!(read(Value::BulkString(b"10.0.0.2".to_vec())), node("10.0.0.2", 7000));
        assert_eq!(read(Value::Nil), node("10.0.0.1", 7000));
        assert_eq!(read(Value::BulkString(b"?".to_vec())), node("10.0.0.1", 7000));
        let beyond = Value::Array(vec![Value::Int(0), Value::Int(16384), primary(Value::Nil)]);
        assert_eq!(read_slots(&Value::Array(vec![beyond]), &asked), None);
        assert_eq!(read_slots(&Value::Nil, &asked), None);

        assert_eq!(read_address("10.0.0.7:6380", &asked), Some(node("10.0.0.7", 6380)));
        assert_eq!(read_address("::1:6380", &asked), Some(node("::1", 6380)));
        assert_eq!(read_address(":6380", &asked), Some(node("10.0.0.1", 6380)));
        assert_eq!(read_address("nonsense", &asked), None);
    }
}
