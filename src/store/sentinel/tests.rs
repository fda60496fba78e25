//! What is made of the sentinels' answers while a failover is on its way, with sentinels that say what they are told to.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::*;
use crate::config::{OnFailure, RedisServers, RedisStore};

/// Ports of servers that are named and never connected to.
const OLD: u16 = 1;
const NEW: u16 = 2;

/// What a sentinel answers: the epoch and the port of `SENTINEL MASTER`, and the port of `GET-MASTER-ADDR-BY-NAME`.
type Answer = (u64, u16, u16);

const BEFORE: Answer = (1, OLD, OLD);
/// So says the one that leads a failover, from just before the replica is promoted.
const PROMOTING: Answer = (PROMOTES | 1, OLD, OLD);
/// A bit of the epoch that makes a sentinel say that it promotes a replica.
const PROMOTES: u64 = 1 << 40;
/// So says the sentinel that leads a failover, from when the new primary is one until the failover is over.
const LEADING: Answer = (2, OLD, NEW);
const AFTER: Answer = (2, NEW, NEW);

/// Three sentinels; one whose answer is `None` breaks off.
struct Stage {
    answers: Vec<Arc<Mutex<Option<Answer>>>>,
    sentinels: Sentinels,
}

impl Stage {
    async fn new() -> Self {
        Self::with_last(Arc::new(Semaphore::new(1))).await
    }

    /// The last sentinel takes connections when it has got this permission.
    async fn with_last(permission: Arc<Semaphore>) -> Self {
        let (mut answers, mut nodes) = (Vec::new(), Vec::new());
        for i in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            nodes.push(node(listener.local_addr().unwrap().port()));
            let answer = Arc::new(Mutex::new(Some(BEFORE)));
            answers.push(answer.clone());
            let permission = permission.clone();
            tokio::spawn(async move {
                let _may = if i == 2 { Some(permission.acquire().await.unwrap()) } else { None };
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(serve(socket, answer.clone()));
                }
            });
        }
        let config = RedisSentinel { service: "mymaster".into(), nodes, login: None };
        let store = RedisStore {
            servers: RedisServers::Sentinel(config.clone()),
            login: None,
            database: 0,
            tls: None,
            namespace: "cg".into(),
            deadline: Duration::from_secs(1),
            // Nobody is silent here, and the machine may be slow.
            connect_timeout: Duration::from_secs(20),
            on_failure: OnFailure::Deny,
        };
        Self { answers, sentinels: Sentinels::new(&config, &Dialer::new(&store).unwrap()) }
    }

    fn say(&self, answers: [Option<Answer>; 3]) {
        for (now, answer) in self.answers.iter().zip(answers) {
            *now.lock().unwrap() = answer;
        }
    }

    /// The primary, if the sentinels have these answers.
    async fn primary(&self, answers: [Option<Answer>; 3]) -> u16 {
        self.say(answers);
        self.sentinels.primary().await.unwrap().port
    }

    /// What replaces this server, if the sentinels have these answers.
    async fn successor(&self, current: u16, answers: [Option<Answer>; 3]) -> Option<u16> {
        self.say(answers);
        match self.sentinels.reason_to_leave(&node(current)).await {
            Some(Outage::Demoted(_, new)) => Some(new.port),
            Some(other) => panic!("{other}"),
            None => None,
        }
    }
}

fn node(port: u16) -> RedisNode {
    RedisNode { host: "127.0.0.1".into(), port }
}

async fn serve(socket: TcpStream, answer: Arc<Mutex<Option<Answer>>>) -> Option<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let mut words = Vec::new();
        for _ in 0..length(&mut socket).await? {
            let mut word = vec![0; length(&mut socket).await? + 2];
            socket.read_exact(&mut word).await.ok()?;
            words.push(String::from_utf8_lossy(&word).trim_end().to_uppercase());
        }
        let (epoch, port, current) = (*answer.lock().unwrap())?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = match words[..] {
            ["PING"] => "+PONG\r\n".to_owned(),
            ["SENTINEL", "MASTER", _] => {
                let state = if epoch & PROMOTES != 0 { "wait_promotion" } else { "none" };
                let (port, epoch) = (port.to_string(), (epoch & !PROMOTES).to_string());
                array(&["ip", "127.0.0.1", "port", &port, "config-epoch", &epoch, "failover-state", state])
            }
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _] => array(&["127.0.0.1", &current.to_string()]),
            _ => "+OK\r\n".to_owned(),
        };
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// The number after `*` or `$`.
async fn length(socket: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    socket.read_line(&mut line).await.ok()?;
    line.trim_end().get(1..)?.parse().ok()
}

fn array(words: &[&str]) -> String {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}

#[tokio::test]
async fn the_new_primary_is_known_from_its_promotion_on() {
    let stage = Stage::new().await;
    assert_eq!(stage.primary([Some(BEFORE); 3]).await, OLD);
    assert_eq!(stage.successor(OLD, [Some(BEFORE); 3]).await, None);
    // Whichever two of them answer first, one has heard of it.
    for first in [LEADING, AFTER] {
        let answers = [Some(first), Some(AFTER), Some(LEADING)];
        assert_eq!(stage.successor(OLD, answers).await, Some(NEW));
        assert_eq!(stage.successor(NEW, answers).await, None);
        assert_eq!(stage.primary(answers).await, NEW);
    }
}

#[tokio::test]
async fn outdated_sentinels_do_not_switch_back_to_the_old_primary() {
    let stage = Stage::new().await;
    assert_eq!(stage.successor(OLD, [Some(LEADING), None, None]).await, Some(NEW));
    for _ in 0..20 {
        // Two old answers outnumber the new one, and may come before it.
        let answers = [Some(LEADING), Some(BEFORE), Some(BEFORE)];
        assert_eq!(stage.primary(answers).await, NEW);
        assert_eq!(stage.successor(NEW, answers).await, None);
    }
    // The one that knows is silent: a connection stays where it is, and one that has to be made leads there.
    let answers = [None, Some(BEFORE), Some(BEFORE)];
    assert_eq!(stage.successor(NEW, answers).await, None);
    assert_eq!(stage.primary(answers).await, NEW);
    // It is remembered even so.
    assert_eq!(stage.successor(NEW, answers).await, None);
}

#[tokio::test]
async fn sentinels_that_were_reset_are_trusted() {
    let stage = Stage::new().await;
    assert_eq!(stage.primary([Some(AFTER); 3]).await, NEW);
    let anew = [Some((0, OLD, OLD)); 3];
    assert_eq!(stage.successor(NEW, anew).await, Some(OLD));
    assert_eq!(stage.primary(anew).await, OLD);
    assert_eq!(stage.successor(OLD, [None, anew[1], anew[2]]).await, None);
    // Failovers count from there.
    assert_eq!(stage.successor(OLD, [Some((1, OLD, NEW)), None, None]).await, Some(NEW));
}

#[tokio::test]
async fn a_primary_is_left_before_its_replica_is_promoted() {
    let stage = Stage::new().await;
    for number in 0..3 {
        // Whichever of them leads, and however fast the others answer.
        let mut answers = [Some(BEFORE); 3];
        answers[number] = Some(PROMOTING);
        stage.say(answers);
        let reason = stage.sentinels.reason_to_leave(&node(OLD)).await;
        assert!(matches!(reason, Some(Outage::HandsOver(_))), "{reason:?}");
        assert!(matches!(stage.sentinels.primary().await, Err(Outage::HandsOver(_))));
    }
    // It is the primary still if nothing comes of it.
    assert_eq!(stage.primary([Some(BEFORE); 3]).await, OLD);
    assert_eq!(stage.successor(OLD, [Some(BEFORE); 3]).await, None);
}

#[test]
fn neither_an_old_answer_nor_a_failover_that_hangs_counts_for_ever() {
    let mut memory = Memory { epoch: 2, primary: Some(node(NEW)), ..Memory::default() };
    let start = Instant::now();
    let mut judged = |after: Duration| {
        let mut view = PrimaryView { epoch: 1, primary: node(OLD), hands_over: true, is_outdated: true };
        memory.judge(&mut view, start + after);
        (view.is_outdated, view.hands_over)
    };
    assert_eq!(judged(Duration::ZERO), (true, true));
    assert_eq!(judged(LONGEST_HANDOVER), (true, false));
    assert_eq!(judged(LONGEST_OUTDATED), (false, false));
}

#[tokio::test]
async fn a_sentinel_that_connects_slowly_is_connected_all_the_same() {
    let permission = Arc::new(Semaphore::new(0));
    let mut stage = Stage::with_last(permission.clone()).await;
    stage.sentinels.last_answers = Duration::ZERO;
    assert_eq!(stage.primary([Some(BEFORE); 3]).await, OLD);
    let last = &stage.sentinels.sentinels[2].connection;
    assert!(last.load().is_none());
    permission.add_permits(1);
    let connected = async {
        while last.load().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), connected).await.expect("it is connected");
}
