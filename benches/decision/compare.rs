//! Redis's CPU time per decision, for this limiter's script and for other ways to limit.
//!
//! Every way runs as one EVALSHA that compares the token's version first, pipelined 16 deep on one connection, and is charged
//! with what INFO says Redis's main thread used. Rounds are interleaved; the median of a round's batches counts.

use std::time::{SystemTime, UNIX_EPOCH};

use callgate::limits::DECIDE;
use redis::{Cmd, Connection, ConnectionLike, cmd};

use crate::server::RedisServer;

/// Commands on their way at once.
const DEPTH: usize = 16;
/// Commands whose CPU time is read together.
const BATCH: usize = 50 * DEPTH;
const ROUNDS: usize = 7;
const TOKENS: usize = 200;
/// Decisions per token and round.
const DECISIONS: usize = 40;

const VERSION_CHECK: &str = "if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return false end\n";

/// One sorted set of all admissions of the hour: the textbook sliding log, exact.
const SORTED_SET: &str = "
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 3600000000)
local hour = redis.call('ZCARD', KEYS[2])
local minute = redis.call('ZCOUNT', KEYS[2], '(' .. (now - 60000000), '+inf')
if minute >= tonumber(ARGV[2]) or hour >= tonumber(ARGV[3]) then return {0, minute, hour} end
redis.call('ZADD', KEYS[2], now, now)
redis.call('PEXPIRE', KEYS[2], '3600000')
return {1, minute + 1, hour + 1}";

/// Two counters per window, the older weighted by how much of it the window still sees: an approximation.
const TWO_COUNTERS: &str = "
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local m, h = math.floor(now / 60000), math.floor(now / 3600000)
local f = redis.call('HMGET', KEYS[2], 'm' .. m, 'm' .. (m - 1), 'h' .. h, 'h' .. (h - 1))
local minute = (f[1] or 0) + (f[2] or 0) * (1 - now % 60000 / 60000)
local hour = (f[3] or 0) + (f[4] or 0) * (1 - now % 3600000 / 3600000)
if minute >= tonumber(ARGV[2]) or hour >= tonumber(ARGV[3]) then return {0, math.floor(minute), math.floor(hour)} end
redis.call('HINCRBY', KEYS[2], 'm' .. m, '1')
redis.call('HINCRBY', KEYS[2], 'h' .. h, '1')
if not f[3] then redis.call('PEXPIRE', KEYS[2], '7200000') end
return {1, math.floor(minute) + 1, math.floor(hour) + 1}";

/// A counter per window that starts with its first request: up to twice the limit round a boundary. It counts, and says
/// nothing of when the window ends.
const FIXED_WINDOWS: &str = "
local minute = redis.call('INCR', KEYS[2])
if minute == 1 then redis.call('PEXPIRE', KEYS[2], '60000') end
local hour = redis.call('INCR', KEYS[3])
if hour == 1 then redis.call('PEXPIRE', KEYS[3], '3600000') end
return minute";

/// The same with what a client must be told, and refused requests free: how much remains in both windows and when they end.
const FIXED_WINDOWS_TOLD: &str = "
local minute, hour = redis.call('GET', KEYS[2]) or 0, redis.call('GET', KEYS[3]) or 0
if minute + 0 >= ARGV[2] + 0 or hour + 0 >= ARGV[3] + 0 then
  return {0, tonumber(minute), tonumber(hour), redis.call('PTTL', KEYS[2]), redis.call('PTTL', KEYS[3])}
end
minute = redis.call('INCR', KEYS[2])
if minute == 1 then redis.call('PEXPIRE', KEYS[2], '60000') end
hour = redis.call('INCR', KEYS[3])
if hour == 1 then redis.call('PEXPIRE', KEYS[3], '3600000') end
return {1, minute, hour, redis.call('PTTL', KEYS[2]), redis.call('PTTL', KEYS[3])}";

/// A way to limit: its name, its script, its keys besides the token's record.
struct Way {
    name: &'static str,
    script: String,
    keys: &'static [&'static str],
    digest: String,
}

/// Prints the table.
pub(crate) fn run() {
    let server = RedisServer::start();
    let client = redis::Client::open(server.url()).expect("a valid URL");
    let mut connection = client.get_connection().expect("a connection");
    let checked = |script: &str| format!("{VERSION_CHECK}{script}");
    let clocked = DECIDE.replace("call('TIME')", "call('HMGET', KEYS[1], 'seconds', 'micros')");
    let mut ways = [
        ("packed log (Callgate)", DECIDE.to_owned(), &["log"][..]),
        ("sorted set", checked(SORTED_SET), &["set"]),
        ("two counters (approximation)", checked(TWO_COUNTERS), &["counters"]),
        ("fixed windows, count only", checked(FIXED_WINDOWS), &["minute", "hour"]),
        ("fixed windows, told and free", checked(FIXED_WINDOWS_TOLD), &["minute2", "hour2"]),
        ("floor: version check alone", checked("return 1"), &[]),
        ("packed log, test clock", clocked, &["log2"]),
    ]
    .map(|(name, script, keys)| Way { name, script, keys, digest: String::new() });
    for way in &mut ways {
        let load: String = cmd("SCRIPT").arg("LOAD").arg(&way.script).query(&mut connection).expect("a digest");
        way.digest = load;
    }
    let (ways, clocked) = ways.split_at(ways.len() - 1);
    let busy = busy_history();
    let mut table = vec![[Vec::new(), Vec::new(), Vec::new()]; ways.len()];
    for _ in 0..ROUNDS {
        issue(&mut connection);
        for (way, row) in ways.iter().zip(&mut table) {
            row[0].push(measure(&mut connection, &decisions(way, 60, 1_000)));
        }
        issue(&mut connection);
        prepare(&mut connection, &clocked[0], &busy);
        for (way, row) in ways.iter().zip(&mut table) {
            row[1].push(measure(&mut connection, &decisions(way, 60, 1_000)));
        }
        table[0][2].push(measure_sliding(&mut connection, &clocked[0], *busy.last().expect("a busy hour")));
    }
    println!(
        "\nRedis CPU µs per decision, pipelined {DEPTH} deep, version check included (median of {ROUNDS} rounds; lowest)"
    );
    println!("{:32}{:>16}{:>16}{:>20}", "", "fresh tokens", "near 1,000/h", "both windows slide");
    for (way, row) in ways.iter().zip(&mut table) {
        print!("{:32}", way.name);
        for (column, width) in row.iter_mut().zip([16, 16, 20]) {
            column.sort_by(f64::total_cmp);
            let text =
                column.first().map_or(String::new(), |low| format!("{:.1} ({low:.1})", column[column.len() / 2]));
            print!("{text:>width$}");
        }
        println!();
    }
}

fn key(token: usize, name: &str) -> String {
    format!("cg:{{{token:012}}}:{name}")
}

/// An empty Redis with the tokens' records.
fn issue(connection: &mut Connection) {
    cmd("FLUSHALL").exec(connection).expect("an answer");
    for token in 0..TOKENS {
        cmd("HSET").arg(key(token, "token")).arg("version").arg(7).exec(connection).expect("an answer");
    }
}

/// When a token was busy that has little left of its hour and most of its minute: Unix ms, up to now.
fn busy_history() -> Vec<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    (0..950).map(|i| now - 3_590_000 + i * 3_778).collect()
}

/// Gives every token a busy hour in every store that needs to know the single admissions, and the others their counts.
fn prepare(connection: &mut Connection, clocked: &Way, busy: &[u64]) {
    for &at in busy {
        let mut commands = Vec::new();
        for token in 0..TOKENS {
            commands.extend(set_clock(token, at).get_packed_command());
            let roomy = Way { keys: &["log"], script: String::new(), digest: clocked.digest.clone(), name: "" };
            commands.extend(decision(&roomy, token, 1_000_000, 1_000_000).get_packed_command());
            commands.extend(cmd("ZADD").arg(key(token, "set")).arg(at * 1_000).arg(at * 1_000).get_packed_command());
        }
        connection.req_packed_commands(&commands, 0, 3 * TOKENS).expect("answers");
    }
    for token in 0..TOKENS {
        for (name, life, count) in [("minute", 60_000, 15), ("hour", 3_600_000, 950)] {
            for name in [name, &format!("{name}2")] {
                let key = key(token, name);
                cmd("SET").arg(key).arg(count).arg("PX").arg(life).exec(connection).expect("an answer");
            }
        }
        // The log that slides is a copy.
        cmd("COPY").arg(key(token, "log")).arg(key(token, "log2")).exec(connection).expect("an answer");
    }
}

fn set_clock(token: usize, at_ms: u64) -> Cmd {
    let mut set = cmd("HSET");
    set.arg(key(token, "token")).arg("seconds").arg(at_ms / 1_000).arg("micros").arg(at_ms % 1_000 * 1_000);
    set
}

fn decision(way: &Way, token: usize, minute: u32, hour: u32) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(&way.digest).arg(1 + way.keys.len()).arg(key(token, "token"));
    for name in way.keys {
        command.arg(key(token, name));
    }
    command.arg(7);
    if way.keys.iter().any(|name| name.starts_with("log")) {
        command.arg([1, minute, 60_000, hour, 3_600_000].map(u32::to_le_bytes).concat());
    } else {
        command.arg(minute).arg(hour);
    }
    command
}

/// A round's decisions, in random order.
fn decisions(way: &Way, minute: u32, hour: u32) -> Vec<Vec<u8>> {
    let mut commands: Vec<_> =
        (0..TOKENS * DECISIONS).map(|i| decision(way, i % TOKENS, minute, hour).get_packed_command()).collect();
    fastrand::shuffle(&mut commands);
    commands
}

/// The median over the batches, in µs per command.
fn measure(connection: &mut Connection, commands: &[Vec<u8>]) -> f64 {
    let mut costs = Vec::new();
    for batch in commands.chunks_exact(BATCH) {
        let before = cpu_us(connection);
        for part in batch.chunks(DEPTH) {
            connection.req_packed_commands(&part.concat(), 0, part.len()).expect("answers");
        }
        costs.push((cpu_us(connection) - before) / batch.len() as f64);
    }
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

/// The clock of the script is set 3,778 ms on before each round of decisions, so that each of them finds one admission gone
/// from the minute and one from the hour.
fn measure_sliding(connection: &mut Connection, clocked: &Way, last_ms: u64) -> f64 {
    let mut costs = Vec::new();
    for turn in 1..=40 {
        for token in 0..TOKENS {
            set_clock(token, last_ms + turn * 3_778).exec(connection).expect("an answer");
        }
        let all: Vec<_> = (0..TOKENS).map(|token| decision(clocked, token, 60, 1_000).get_packed_command()).collect();
        let before = cpu_us(connection);
        for part in all.chunks(DEPTH) {
            connection.req_packed_commands(&part.concat(), 0, part.len()).expect("answers");
        }
        costs.push((cpu_us(connection) - before) / all.len() as f64);
    }
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

/// CPU time of Redis's main thread so far.
fn cpu_us(connection: &mut Connection) -> f64 {
    let text: String = cmd("INFO").arg("cpu").query(connection).expect("an answer");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<f64>().ok()).expect("a field of Redis 6.2 and later")
    };
    (field("used_cpu_user_main_thread:") + field("used_cpu_sys_main_thread:")) * 1e6
}
