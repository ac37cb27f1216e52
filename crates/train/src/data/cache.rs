//! Encoded examples on the disk, for data sets larger than memory: made once, and found again under the hash of everything that they are
//! a function of.
//!
//! `KEY.tokens` holds the tokens of all examples one after the other, 32 bits each, little-endian, the highest bit set on what is
//! learnt. `KEY.index` holds the magic, four 64-bit counts (examples, tokens, dropped, truncated), and for each example its length and
//! where the adapter begins, 32 bits each. Both are written aside and renamed, the index last: where it is, the tokens are whole. The index
//! aside is locked meanwhile, so of several processes that train on one data set the first encodes it and the others wait.
//! In memory are the index (40 bytes an example) and the examples of one optimizer step.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Dataset, Example};
use crate::error::TrainError;

const MAGIC: &[u8; 8] = b"ETTOKEN1";
/// Set on a token that is learnt.
const LEARNT: u32 = 1 << 31;

/// The tokens of a data set on the disk.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl TokenFile {
    /// Tokens `place .. place + len` and their weights.
    ///
    /// # Errors
    /// [`TrainError::Read`].
    pub(super) fn read(&self, place: u64, len: usize) -> Result<(Vec<u32>, Vec<f32>), TrainError> {
        let mut bytes = vec![0; 4 * len];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(4 * place))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(reading(&self.path))?;
        let words = bytes
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(words
            .map(|word| (word & !LEARNT, if word & LEARNT == 0 { 0.0 } else { 1.0 }))
            .unzip())
    }
}

/// Where the examples of one key are, or will be.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    key: String,
}

impl Place {
    /// A key in a directory, which need not be there yet.
    pub(super) fn new(dir: &Path, key: String) -> Self {
        Self {
            dir: dir.to_owned(),
            key,
        }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.key))
    }

    /// The examples, if they are there and whole.
    ///
    /// # Errors
    /// [`TrainError::Read`] for files that are there but cannot be read.
    pub(super) fn find(&self) -> Result<Option<Dataset>, TrainError> {
        let (index, tokens) = (self.path("index"), self.path("tokens"));
        let file = match File::open(&index) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(TrainError::Read {
                    path: index,
                    source,
                });
            }
        };
        let Some(mut set) = read_index(BufReader::new(file)) else {
            return Ok(None);
        };
        let total: u64 = set.examples.iter().map(|e| e.len as u64).sum();
        let file = match File::open(&tokens) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(TrainError::Read {
                    path: tokens,
                    source,
                });
            }
        };
        let bytes = file.metadata().map_err(reading(&tokens))?.len();
        if bytes != 4 * total {
            return Ok(None);
        }
        set.file = Some(Arc::new(TokenFile {
            path: tokens,
            file: Mutex::new(file),
        }));
        Ok(Some(set))
    }

    /// The examples if they are there, or else what writes them. Waits while another process writes them.
    ///
    /// # Errors
    /// [`TrainError::Read`], [`TrainError::Write`].
    pub(super) fn open(self) -> Result<Opened, TrainError> {
        if let Some(set) = self.find()? {
            return Ok(Opened::Whole(set));
        }
        fs::create_dir_all(&self.dir).map_err(writing(&self.dir))?;
        let aside = self.path("index.part");
        let index = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&aside)
            .map_err(writing(&aside))?;
        index.lock().map_err(writing(&aside))?;
        if let Some(set) = self.find()? {
            // Where another process has renamed the file meanwhile, there is none.
            let _ = fs::remove_file(&aside);
            return Ok(Opened::Whole(set));
        }
        index.set_len(0).map_err(writing(&aside))?;
        let tokens = self.path("tokens.part");
        let file = File::create(&tokens).map_err(writing(&tokens))?;
        Ok(Opened::Begun(Writer {
            file: BufWriter::new(file),
            index,
            place: self,
            set: Dataset::default(),
            tokens: 0,
        }))
    }
}

/// What is at a [`Place`].
#[derive(Debug)]
pub(super) enum Opened {
    /// The examples.
    Whole(Dataset),
    /// Nothing yet.
    Begun(Writer),
}

/// Examples on their way to the disk.
#[derive(Debug)]
pub(super) struct Writer {
    place: Place,
    file: BufWriter<File>,
    /// Locked until all is in its place.
    index: File,
    /// The counts and the index.
    pub set: Dataset,
    /// Tokens so far.
    pub tokens: u64,
}

impl Writer {
    /// Adds an example.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub(super) fn push(
        &mut self,
        tokens: &[u32],
        learnt: &[bool],
        adapter_from: usize,
    ) -> Result<(), TrainError> {
        self.set.examples.push(Example {
            start: 0,
            place: self.tokens,
            len: tokens.len(),
            adapter_from,
        });
        self.tokens += tokens.len() as u64;
        tokens
            .iter()
            .zip(learnt)
            .try_for_each(|(&token, &learnt)| {
                let word = token | if learnt { LEARNT } else { 0 };
                self.file.write_all(&word.to_le_bytes())
            })
            .map_err(writing(&self.place.path("tokens.part")))
    }

    /// Puts the files in their place and gives the examples.
    ///
    /// # Errors
    /// [`TrainError::Write`], [`TrainError::Read`].
    pub(super) fn finish(mut self) -> Result<Dataset, TrainError> {
        let place = self.place;
        let (aside, index) = (place.path("tokens.part"), place.path("index.part"));
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(writing(&aside))?;
        write_index(&self.index, &self.set, self.tokens).map_err(writing(&index))?;
        for (from, to) in [(aside, "tokens"), (index, "index")] {
            let to = place.path(to);
            fs::rename(&from, &to).map_err(writing(&to))?;
        }
        place.find()?.ok_or_else(|| TrainError::Read {
            path: place.path("index"),
            source: std::io::Error::other("another process changed it while it was written"),
        })
    }
}

fn write_index(file: &File, set: &Dataset, tokens: u64) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    file.write_all(MAGIC)?;
    let counts = [
        set.examples.len() as u64,
        tokens,
        set.dropped as u64,
        set.truncated as u64,
    ];
    for count in counts {
        file.write_all(&count.to_le_bytes())?;
    }
    for e in &set.examples {
        for value in [e.len, e.adapter_from] {
            let value = u32::try_from(value).unwrap_or(u32::MAX);
            file.write_all(&value.to_le_bytes())?;
        }
    }
    file.flush()?;
    file.get_ref().sync_all()
}

/// The counts and the examples; `None` for a file that is damaged or of another version.
fn read_index(mut file: impl Read) -> Option<Dataset> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic).ok()?;
    if &magic != MAGIC {
        return None;
    }
    let mut counts = [0u64; 4];
    for count in &mut counts {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes).ok()?;
        *count = u64::from_le_bytes(bytes);
    }
    let [examples, tokens, dropped, truncated] = counts;
    let mut set = Dataset {
        dropped: usize::try_from(dropped).ok()?,
        truncated: usize::try_from(truncated).ok()?,
        ..Dataset::default()
    };
    let mut place = 0u64;
    for _ in 0..examples {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes).ok()?;
        let [a, b, c, d, e, f, g, h] = bytes;
        let len = u32::from_le_bytes([a, b, c, d]);
        let adapter_from = u32::from_le_bytes([e, f, g, h]);
        if adapter_from > len {
            return None;
        }
        set.examples.push(Example {
            start: 0,
            place,
            len: len as usize,
            adapter_from: adapter_from as usize,
        });
        place += u64::from(len);
    }
    (place == tokens && file.read(&mut [0]).ok()? == 0).then_some(set)
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_owned();
    |source| TrainError::Read { path, source }
}

fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_owned();
    |source| TrainError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(dir: &Path) -> Writer {
        match Place::new(dir, "key".to_owned()).open().expect("opened") {
            Opened::Begun(writer) => writer,
            Opened::Whole(_) => panic!("nothing was written"),
        }
    }

    fn written(dir: &Path) -> Dataset {
        let mut writer = begun(dir);
        writer
            .push(&[7, 8, 9], &[false, true, true], 1)
            .expect("written");
        writer.push(&[1, 2], &[true, false], 2).expect("written");
        writer.set.dropped = 4;
        writer.finish().expect("finished")
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = written(dir.path());
        assert_eq!((set.examples.len(), set.dropped, set.truncated), (2, 4, 0));
        let picked = [1, 0];
        let (held, all) = set.hold(&picked).expect("read");
        assert_eq!(&*all, [0, 1]);
        assert_eq!(held.tokens_of(&held.examples[0]), [1, 2]);
        assert_eq!(held.weights_of(&held.examples[1]), [0.0, 1.0, 1.0]);
        assert_eq!(held.examples[1].adapter_from, 1);
        assert_eq!((held.examples[0].place, held.examples[0].start), (3, 0));
        let names = fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(names, 2, "nothing is left aside");
    }

    #[test]
    fn who_comes_while_another_writes_gets_what_that_one_wrote() {
        let dir = tempfile::tempdir().expect("a directory");
        // One that gave up: its file aside is in nobody's way.
        drop(begun(dir.path()));
        let mut writer = begun(dir.path());
        let other = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                Place::new(dir.path(), "key".to_owned())
                    .open()
                    .expect("opened")
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiting.is_finished(), "two write at once");
            writer.push(&[7, 8], &[false, true], 1).expect("written");
            drop(writer.finish().expect("finished"));
            waiting.join().expect("no panic")
        });
        assert!(matches!(other, Opened::Whole(set) if set.examples.len() == 1));
        let names = fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(names, 2, "nothing is left aside");
    }

    #[test]
    fn what_is_not_whole_is_not_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = || Place::new(dir.path(), "key".to_owned());
        assert!(place().find().expect("no error").is_none());
        drop(written(dir.path()));
        assert!(place().find().expect("no error").is_some());
        for name in ["key.index", "key.tokens"] {
            let path = dir.path().join(name);
            let whole = fs::read(&path).expect("read");
            for len in 0..whole.len() {
                fs::write(&path, &whole[..len]).expect("written");
                assert!(
                    place().find().expect("no error").is_none(),
                    "{name} cut to {len}"
                );
            }
            fs::write(&path, &whole).expect("written");
        }
    }
}
