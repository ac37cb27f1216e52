//! Processes that train one model together, each on a share of every step.
//!
//! The first process (rank 0) leads. In a step, each adds up the gradients of its micro-batches; the leader adds the sums in the order of the
//! ranks and sends the total back, so all make the same step with the same bits. What else the step needs of the others, the completions of
//! `train grpo` and their scores, goes the same way. A recipe means the same for any number of processes: its batch is the step's, not a
//! process's, and a checkpoint goes on with another number of them.
//!
//! The leader alone writes; all read the recipe, the data and the checkpoint, and what they read is compared before the first step.
//! The connections are plain TCP without encryption or passwords: use them inside a network that you trust.

use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::TrainError;
use crate::ops::simd;
use crate::run::checkpoint::differences;

/// The first bytes of a connection: what speaks, and the version of what it says.
const HELLO: &[u8; 16] = b"edgethink train2";
/// Lines of a group: one for the thread that learns, one for the thread that draws beside it.
const LINES: usize = 2;
/// A process that is silent for so long is given up, on each line: a draw is waited for longer than a gradient.
const SILENCE: [Duration; LINES] = [Duration::from_secs(1800), Duration::from_secs(6 * 3600)];
/// The longest message that is read from another process.
const MAX_BYTES: usize = 1 << 30;
/// Values that are sent at once.
const RUN: usize = 1 << 14;
/// Settings that each process may have for itself.
const OWN: [&str; 2] = ["recipe.run.device", "recipe.run.threads"];

/// This process's place among those that train together.
#[derive(Debug)]
pub struct ProcessGroup {
    /// For the thread that learns.
    pub(crate) learning: Line,
    /// For the thread that draws, which never waits for the other.
    pub(crate) drawing: Line,
}

/// The connections of one thread of each process. All processes ask the same of a line, in the same order.
#[derive(Debug)]
pub(crate) struct Line {
    rank: usize,
    size: usize,
    /// To each follower in the order of the ranks, or to the leader alone.
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    rank: usize,
    from: BufReader<TcpStream>,
    to: BufWriter<TcpStream>,
}

impl ProcessGroup {
    /// One process by itself.
    #[must_use]
    pub fn alone() -> Self {
        Self::of(0, 1, [Vec::new(), Vec::new()])
    }

    /// Meets the others: rank 0 listens at `address` (`host:port`) until all are there, the others connect to it. `wait` is how long.
    ///
    /// # Errors
    /// [`TrainError::Group`] for an impossible place, an address that cannot be used, two processes of one rank, or processes that do not
    /// come in time.
    pub fn join(
        rank: usize,
        size: usize,
        address: &str,
        wait: Duration,
    ) -> Result<Self, TrainError> {
        if rank >= size || size > 1 << 16 {
            return Err(failed(format!(
                "rank {rank} of {size} processes is impossible: ranks go from 0 to the number of processes less 1"
            )));
        }
        if size == 1 {
            return Ok(Self::alone());
        }
        let until = Instant::now() + wait;
        let links = if rank == 0 {
            listen(size, address, until)?
        } else {
            connect(rank, size, address, until)?
        };
        Ok(Self::of(rank, size, links))
    }

    fn of(rank: usize, size: usize, links: [Vec<Link>; LINES]) -> Self {
        let [learning, drawing] = links.map(|links| Line { rank, size, links });
        Self { learning, drawing }
    }

    /// The process that writes, and whose progress is shown.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.learning.leads()
    }
}

impl Line {
    /// The process that writes.
    pub(crate) fn leads(&self) -> bool {
        self.rank == 0
    }

    /// How many processes there are.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The share of `count` things that falls to this process: the shares stand in the order of the ranks, and none is larger than another
    /// by more than one.
    pub(crate) fn share(&self, count: usize) -> Range<usize> {
        self.rank * count / self.size..(self.rank + 1) * count / self.size
    }

    /// Compares what all are about to do; its `recipe` may differ in what each process decides for itself.
    ///
    /// # Errors
    /// [`TrainError::Group`], on all processes, if one is about to do something else than the leader.
    pub(crate) fn agree(&mut self, about: &Value) -> Result<(), TrainError> {
        let all = self.gather(about.to_string().as_bytes())?;
        let parsed = |text: &[u8]| serde_json::from_slice(text).unwrap_or(Value::Null);
        let leaders = parsed(&all[0]);
        for (rank, text) in all.iter().enumerate() {
            let mut apart = differences(&leaders, &parsed(text));
            apart.retain(|name| !OWN.contains(&name.as_str()));
            if !apart.is_empty() {
                return Err(failed(format!(
                    "rank {rank} does not do what rank 0 does ({}); give all processes the same recipe, data and checkpoints",
                    apart.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Whether it is so in any process.
    ///
    /// # Errors
    /// [`TrainError::Group`] if a process has gone.
    pub(crate) fn any(&mut self, so: bool) -> Result<bool, TrainError> {
        let all = self.gather(&[u8::from(so)])?;
        Ok(all.iter().any(|one| one[..] != [0]))
    }

    /// What all processes have, one after the other in the order of the ranks.
    ///
    /// # Errors
    /// As [`Line::any`].
    pub(crate) fn concat(&mut self, own: Vec<u32>) -> Result<Vec<u32>, TrainError> {
        if self.links.is_empty() {
            return Ok(own);
        }
        // Numbers are little-endian on every machine that this builds for (`edgethink_model::bytes`).
        let all = self.gather(bytemuck::cast_slice(&own))?.concat();
        let words = all.chunks_exact(size_of::<u32>());
        Ok(words.map(bytemuck::pod_read_unaligned).collect())
    }

    /// The message of each process, in the order of the ranks.
    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        if !self.leads() {
            let size = self.size;
            let link = &mut self.links[0];
            link.send_bytes(own)?;
            link.flush()?;
            return (0..size).map(|_| link.read_bytes()).collect();
        }
        let mut all = vec![own.to_vec()];
        for link in &mut self.links {
            all.push(link.read_bytes()?);
        }
        for link in &mut self.links {
            for message in &all {
                link.send_bytes(message)?;
            }
            link.flush()?;
        }
        Ok(all)
    }

    /// Replaces `loss` and `sums` by their totals over all processes.
    ///
    /// # Errors
    /// As [`Line::any`].
    pub(crate) fn sum(&mut self, loss: &mut f64, sums: &mut [Vec<f32>]) -> Result<(), TrainError> {
        if !self.leads() {
            let link = &mut self.links[0];
            link.send_sums(*loss, sums)?;
            *loss = link.read_sums(sums, false)?;
            return Ok(());
        }
        for link in &mut self.links {
            *loss += link.read_sums(sums, true)?;
        }
        for link in &mut self.links {
            link.send_sums(*loss, sums)?;
        }
        Ok(())
    }
}

/// The leader's side of the meeting.
fn listen(size: usize, address: &str, until: Instant) -> Result<[Vec<Link>; LINES], TrainError> {
    let unusable = |e: std::io::Error| {
        failed(format!(
            "rank 0 cannot listen at {address}: {e}; name an address of this machine and a free port"
        ))
    };
    let listener = TcpListener::bind(address).map_err(unusable)?;
    listener.set_nonblocking(true).map_err(unusable)?;
    let mut lines = [const { Vec::<Link>::new() }; LINES];
    while lines.iter().any(|links| links.len() + 1 < size) {
        match listener.accept() {
            Ok((stream, _)) => {
                // Whatever else knocks at the port is not one of us, and is let go.
                let Ok([rank, of, line]) = welcome(&stream) else {
                    continue;
                };
                let Some(links) = lines.get_mut(line) else {
                    continue;
                };
                let taken = rank == 0 || links.iter().any(|link| link.rank == rank);
                let verdict = if of != size {
                    format!("rank {rank} counts {of} processes, rank 0 counts {size}")
                } else if taken || rank >= size {
                    format!("there are two processes of rank {rank}, or it is not below {size}")
                } else {
                    String::new()
                };
                let mut link = Link::new(rank, stream, line)?;
                link.send_bytes(verdict.as_bytes())?;
                link.flush()?;
                if !verdict.is_empty() {
                    return Err(failed(verdict));
                }
                links.push(link);
            }
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => {
                return Err(failed(format!(
                    "{} of {size} processes came to {address} in time; start the others, or set a smaller number",
                    lines[0].len() + 1
                )));
            }
        }
    }
    for links in &mut lines {
        links.sort_by_key(|link| link.rank);
    }
    Ok(lines)
}

/// Reads who connects: its rank, how many processes it counts, and which line this is.
fn welcome(mut stream: &TcpStream) -> std::io::Result<[usize; 3]> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut hello = [0u8; HELLO.len()];
    stream.read_exact(&mut hello)?;
    if hello != *HELLO {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut numbers = [0usize; 3];
    for number in &mut numbers {
        let mut bytes = [0u8; 4];
        stream.read_exact(&mut bytes)?;
        *number = u32::from_le_bytes(bytes) as usize;
    }
    Ok(numbers)
}

/// A follower's side of the meeting.
fn connect(
    rank: usize,
    size: usize,
    address: &str,
    until: Instant,
) -> Result<[Vec<Link>; LINES], TrainError> {
    let to_leader = || {
        let mut last = ErrorKind::AddrNotAvailable.into();
        for place in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&place, Duration::from_secs(5)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let mut lines = [const { Vec::<Link>::new() }; LINES];
    for (line, links) in lines.iter_mut().enumerate() {
        let stream = loop {
            match to_leader() {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => {
                    return Err(failed(format!(
                        "rank {rank} cannot reach rank 0 at {address}: {error}; start rank 0 there"
                    )));
                }
            }
        };
        let mut link = Link::new(0, stream, line)?;
        let numbers = [rank, size, line].map(|number| (number as u32).to_le_bytes());
        link.send(&[HELLO, &numbers.concat()[..]].concat())?;
        link.flush()?;
        links.push(link);
    }
    for link in lines.iter_mut().flatten() {
        let verdict = link.read_bytes()?;
        if !verdict.is_empty() {
            return Err(failed(String::from_utf8_lossy(&verdict).into_owned()));
        }
    }
    Ok(lines)
}

impl Link {
    fn new(rank: usize, stream: TcpStream, line: usize) -> Result<Self, TrainError> {
        let gone = |e: std::io::Error| failed(format!("the connection to rank {rank} failed: {e}"));
        stream.set_nodelay(true).map_err(gone)?;
        stream.set_read_timeout(Some(SILENCE[line])).map_err(gone)?;
        stream
            .set_write_timeout(Some(SILENCE[line]))
            .map_err(gone)?;
        let other = stream.try_clone().map_err(gone)?;
        Ok(Self {
            rank,
            from: BufReader::new(other),
            to: BufWriter::new(stream),
        })
    }

    fn gone(&self, error: &std::io::Error) -> TrainError {
        let why = match error.kind() {
            ErrorKind::UnexpectedEof => "what it said last tells why".to_owned(),
            _ => error.to_string(),
        };
        failed(format!(
            "rank {} has gone ({why}); start all processes again, they go on from the last checkpoint",
            self.rank
        ))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        self.to.write_all(bytes).map_err(|e| self.gone(&e))
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        self.to.flush().map_err(|e| self.gone(&e))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), TrainError> {
        self.from.read_exact(bytes).map_err(|e| self.gone(&e))
    }

    fn read_8(&mut self) -> Result<[u8; 8], TrainError> {
        let mut bytes = [0; 8];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        self.send(&(bytes.len() as u64).to_le_bytes())?;
        self.send(bytes)
    }

    fn read_bytes(&mut self) -> Result<Vec<u8>, TrainError> {
        let len = usize::try_from(u64::from_le_bytes(self.read_8()?));
        let Some(len) = len.ok().filter(|&len| len <= MAX_BYTES) else {
            return Err(failed(format!("rank {} sent something strange", self.rank)));
        };
        let mut bytes = vec![0; len];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn send_sums(&mut self, loss: f64, sums: &[Vec<f32>]) -> Result<(), TrainError> {
        self.send(&loss.to_le_bytes())?;
        for values in sums {
            self.send(bytemuck::cast_slice(values))?;
        }
        self.flush()
    }

    /// The loss that was sent; the values are added to `sums`, or replace them.
    fn read_sums(&mut self, sums: &mut [Vec<f32>], add: bool) -> Result<f64, TrainError> {
        let loss = f64::from_le_bytes(self.read_8()?);
        let mut run = vec![0f32; RUN];
        for part in sums.iter_mut().flat_map(|values| values.chunks_mut(RUN)) {
            let run = &mut run[..part.len()];
            self.read(bytemuck::cast_slice_mut(run))?;
            if add {
                simd::vectorized(|| simd::add_assign(part, run));
            } else {
                part.copy_from_slice(run);
            }
        }
        Ok(loss)
    }
}

fn failed(problem: String) -> TrainError {
    TrainError::Group { problem }
}
