//! Processes that train one model together, each on a share of every step's examples.
//!
//! The first process (rank 0) leads. In a step, each adds up the gradients of its micro-batches; the leader adds the sums in the order of the
//! ranks and sends the total back, so all make the same step with the same bits and nothing else has to be exchanged. A recipe means the
//! same for any number of processes: `batch_tokens` is the step's, not a process's, and a checkpoint goes on with another number of them.
//!
//! The leader alone writes; all read the recipe, the data and the checkpoint, and what they read is compared before the first step.
//! The connections are plain TCP without encryption or passwords: use them inside a network that you trust.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::error::TrainError;
use crate::ops::simd;

/// The first bytes of a connection: what speaks, and the version of what it says.
const HELLO: &[u8; 16] = b"edgethink train1";
/// A process that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(1800);
/// The longest text that is read from another process.
const MAX_TEXT: usize = 1 << 20;
/// Values that are sent at once.
const RUN: usize = 1 << 14;

/// This process's place among those that train together.
#[derive(Debug)]
pub struct ProcessGroup {
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
        Self {
            rank: 0,
            size: 1,
            links: Vec::new(),
        }
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
            vec![connect(rank, size, address, until)?]
        };
        Ok(Self { rank, size, links })
    }

    /// Whether there are no others.
    pub(crate) fn is_alone(&self) -> bool {
        self.size == 1
    }

    /// The process that writes, and whose progress is shown.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// The share of a step's micro-batches that falls to this process.
    pub(crate) fn share<T>(&self, micro_batches: Vec<T>) -> Vec<T> {
        let mine = micro_batches.into_iter().skip(self.rank);
        mine.step_by(self.size).collect()
    }

    /// Compares what all are about to do, as `text`; `differ` says in words how another's text differs from the leader's.
    ///
    /// # Errors
    /// [`TrainError::Group`], on all processes, if one has another text.
    pub(crate) fn agree(
        &mut self,
        text: &str,
        differ: impl Fn(&str, &str) -> String,
    ) -> Result<(), TrainError> {
        if !self.leads() {
            for link in &mut self.links {
                link.send_text(text)?;
                let verdict = link.read_text()?;
                if !verdict.is_empty() {
                    return Err(failed(verdict));
                }
            }
            return Ok(());
        }
        let mut verdict = String::new();
        for link in &mut self.links {
            let theirs = link.read_text()?;
            if theirs != text {
                verdict = format!(
                    "rank {} does not do what rank 0 does ({}); give all processes the same recipe, data and checkpoints",
                    link.rank,
                    differ(text, &theirs)
                );
            }
        }
        for link in &mut self.links {
            link.send_text(&verdict)?;
        }
        if verdict.is_empty() {
            Ok(())
        } else {
            Err(failed(verdict))
        }
    }

    /// Replaces `loss` and `sums` by their totals over all processes. `stop` is whether this process wants to end after the step; returns
    /// whether any does.
    ///
    /// # Errors
    /// [`TrainError::Group`] if a process has gone.
    pub(crate) fn sum(
        &mut self,
        loss: &mut f64,
        sums: &mut [Vec<f32>],
        stop: bool,
    ) -> Result<bool, TrainError> {
        let mut ends = stop;
        let leads = self.leads();
        for link in &mut self.links {
            if !leads {
                link.send_sums(*loss, sums, stop)?;
            }
            let (part, theirs) = link.read_sums(sums, leads)?;
            if leads {
                *loss += part;
                ends |= theirs;
            } else {
                (*loss, ends) = (part, theirs);
            }
        }
        if leads {
            for link in &mut self.links {
                link.send_sums(*loss, sums, ends)?;
            }
        }
        Ok(ends)
    }
}

/// The leader's side of the meeting.
fn listen(size: usize, address: &str, until: Instant) -> Result<Vec<Link>, TrainError> {
    let unusable = |e: std::io::Error| {
        failed(format!(
            "rank 0 cannot listen at {address}: {e}; name an address of this machine and a free port"
        ))
    };
    let listener = TcpListener::bind(address).map_err(unusable)?;
    listener.set_nonblocking(true).map_err(unusable)?;
    let mut links: Vec<Link> = Vec::new();
    while links.len() + 1 < size {
        match listener.accept() {
            Ok((stream, _)) => {
                // Whatever else knocks at the port is not one of us, and is let go.
                let Ok((rank, of)) = welcome(&stream) else {
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
                let mut link = Link::new(rank, stream)?;
                link.send_text(&verdict)?;
                if !verdict.is_empty() {
                    return Err(failed(verdict));
                }
                links.push(link);
            }
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => {
                return Err(failed(format!(
                    "{} of {size} processes came to {address} in time; start the others, or set a smaller number",
                    links.len() + 1
                )));
            }
        }
    }
    links.sort_by_key(|link| link.rank);
    Ok(links)
}

/// Reads who connects: its rank, and how many processes it counts.
fn welcome(mut stream: &TcpStream) -> std::io::Result<(usize, usize)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut hello = [0u8; HELLO.len() + 8];
    stream.read_exact(&mut hello)?;
    let (name, numbers) = hello.split_at(HELLO.len());
    if name != HELLO {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let number = |at: usize| {
        let bytes = [
            numbers[at],
            numbers[at + 1],
            numbers[at + 2],
            numbers[at + 3],
        ];
        u32::from_le_bytes(bytes) as usize
    };
    Ok((number(0), number(4)))
}

/// A follower's side of the meeting.
fn connect(rank: usize, size: usize, address: &str, until: Instant) -> Result<Link, TrainError> {
    let to_leader = || {
        let mut last = std::io::ErrorKind::AddrNotAvailable.into();
        for place in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&place, Duration::from_secs(5)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
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
    let mut link = Link::new(0, stream)?;
    let numbers = [rank as u32, size as u32].map(u32::to_le_bytes).concat();
    link.send(&[HELLO, &numbers[..]].concat())?;
    link.flush()?;
    let verdict = link.read_text()?;
    if verdict.is_empty() {
        Ok(link)
    } else {
        Err(failed(verdict))
    }
}

impl Link {
    fn new(rank: usize, stream: TcpStream) -> Result<Self, TrainError> {
        let gone = |e: std::io::Error| failed(format!("the connection to rank {rank} failed: {e}"));
        stream.set_nodelay(true).map_err(gone)?;
        stream.set_read_timeout(Some(SILENCE)).map_err(gone)?;
        stream.set_write_timeout(Some(SILENCE)).map_err(gone)?;
        let other = stream.try_clone().map_err(gone)?;
        Ok(Self {
            rank,
            from: BufReader::new(other),
            to: BufWriter::new(stream),
        })
    }

    fn gone(&self, error: &std::io::Error) -> TrainError {
        failed(format!(
            "rank {} has gone ({error}); start all processes again, they go on from the last checkpoint",
            self.rank
        ))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        self.to.write_all(bytes).map_err(|e| self.gone(&e))
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        self.to.flush().map_err(|e| self.gone(&e))
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], TrainError> {
        let mut bytes = [0; N];
        self.from
            .read_exact(&mut bytes)
            .map_err(|e| self.gone(&e))?;
        Ok(bytes)
    }

    fn send_text(&mut self, text: &str) -> Result<(), TrainError> {
        self.send(&(text.len() as u64).to_le_bytes())?;
        self.send(text.as_bytes())?;
        self.flush()
    }

    fn read_text(&mut self) -> Result<String, TrainError> {
        let len = u64::from_le_bytes(self.read()?);
        let len = usize::try_from(len).ok().filter(|&len| len <= MAX_TEXT);
        let strange = || failed(format!("rank {} sent something strange", self.rank));
        let mut bytes = vec![0; len.ok_or_else(strange)?];
        self.from
            .read_exact(&mut bytes)
            .map_err(|e| self.gone(&e))?;
        String::from_utf8(bytes).map_err(|_| strange())
    }

    fn send_sums(&mut self, loss: f64, sums: &[Vec<f32>], stop: bool) -> Result<(), TrainError> {
        self.send(&loss.to_le_bytes())?;
        self.send(&[u8::from(stop)])?;
        for values in sums {
            // Numbers are little-endian on every machine that this builds for (`edgethink_model::bytes`).
            self.send(bytemuck::cast_slice(values))?;
        }
        self.flush()
    }

    /// The loss and the wish to stop that were sent; the values are added to `sums`, or replace them.
    fn read_sums(&mut self, sums: &mut [Vec<f32>], add: bool) -> Result<(f64, bool), TrainError> {
        let loss = f64::from_le_bytes(self.read()?);
        let stop = self.read::<1>()? != [0];
        let mut run = vec![0f32; RUN];
        for part in sums.iter_mut().flat_map(|values| values.chunks_mut(RUN)) {
            let run = &mut run[..part.len()];
            self.from
                .read_exact(bytemuck::cast_slice_mut(run))
                .map_err(|e| self.gone(&e))?;
            if add {
                simd::vectorized(|| simd::add_assign(part, run));
            } else {
                part.copy_from_slice(run);
            }
        }
        Ok((loss, stop))
    }
}

fn failed(problem: String) -> TrainError {
    TrainError::Group { problem }
}
