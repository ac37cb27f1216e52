//! The layout of packed integer weights `[rows, cols]`, value = scale · (code − zero) with zero 8 (4-bit), 32 (6-bit) or 128 (8-bit), or
//! scale · code + offset.
//!
//! Rows are cut into panels of [`PANEL`] = 16, columns into groups of [`GROUP`] = 32, and the four columns 4j..4j+4 of a group are
//! its quad j. A quad of all 16 rows is 64 bytes, row after row, 4 columns each: one 512-bit register in which each 32-bit lane is
//! one row, so that one `vpdpbusd` (or four `sdot`) with four broadcast activations advances 16 rows by 4 columns.
//!
//! ```text
//! [panel][group] codes    8-bit: quad 0 .. quad 7, 64 bytes each
//!                         4-bit: 4 blocks of 64 bytes; block j holds quad j in the low and quad j+4 in the high nibbles
//!                scales   of the 16 rows, f16, little-endian
//!                offsets  the same, where there are any
//! ```
//! Codes of 6 bits are those of GGUF's Q6_K: the scale of 16 columns is an i8 times an f16, which 256 columns share. Eight groups are a block.
//!
//! ```text
//! [panel][block] [group] codes    half h of the group (16 columns): 3 blocks of 64 bytes; block k holds quad 4h + k in its low 6 bits
//!                                 and bits 2k and 2k + 1 of quad 4h + 3 in its high 2
//!                        scales   of the 16 rows, i8: that of the first half and that of the second
//!                scales  of the 16 rows, f16, little-endian
//! ```
//! Rows beyond `rows` in the last panel are zeros with scale 0. A product reads one run of memory from its first byte to its last, any
//! range of panels is a slice, and 16 rows of blocks of a file (GGUF's Q4_0, Q8_0 and Q6_K) take exactly the bytes of their panel.

use std::ops::Range;

/// Columns that share a scale.
pub const GROUP: usize = 32;
/// Rows of a panel.
pub const PANEL: usize = 16;

/// Width of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    /// Codes 0..=15, zero point 8.
    B4,
    /// Codes 0..=63, zero point 32, as Q6_K has them. Made from the blocks of a file alone.
    B6,
    /// Codes 0..=255, zero point 128.
    B8,
}

impl Bits {
    /// The code that means 0 where there is no offset.
    #[must_use]
    pub fn zero(self) -> u8 {
        match self {
            Self::B4 => 8,
            Self::B6 => 32,
            Self::B8 => 128,
        }
    }

    /// The largest code.
    #[must_use]
    pub fn max_code(self) -> u8 {
        match self {
            Self::B4 => 15,
            Self::B6 => 63,
            Self::B8 => 255,
        }
    }

    /// Bytes of the codes of one group of one panel.
    pub(crate) const fn code_bytes(self) -> usize {
        match self {
            Self::B4 => GROUP * PANEL / 2,
            Self::B6 => GROUP * PANEL / 4 * 3,
            Self::B8 => GROUP * PANEL,
        }
    }

    /// The width of which a group has so many bytes of codes.
    pub(crate) const fn of_code_bytes(bytes: usize) -> Self {
        match bytes {
            256 => Self::B4,
            384 => Self::B6,
            _ => Self::B8,
        }
    }

    /// Groups that share a f16 scale and lie in one block of the panel.
    pub(crate) const fn block_groups(self) -> usize {
        match self {
            Self::B4 | Self::B8 => 1,
            Self::B6 => 8,
        }
    }

    /// Where the f16 scales of a block begin: behind the codes and, with 6 bits, the scales of a byte.
    pub(crate) const fn scales_at(self) -> usize {
        match self {
            Self::B4 | Self::B8 => self.code_bytes(),
            Self::B6 => self.block_groups() * GROUP6,
        }
    }

    /// Whether blocks of so many bytes have offsets.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn has_offset(self, block_bytes: usize) -> bool {
        block_bytes > self.scales_at() + HALVES
    }

    /// Columns of a matrix are a multiple of this.
    #[must_use]
    pub const fn block_cols(self) -> usize {
        GROUP * self.block_groups()
    }
}

/// Sizes of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedShape {
    /// Output features.
    pub rows: usize,
    /// Input features, a multiple of [`Bits::block_cols`].
    pub cols: usize,
    /// Width of a code.
    pub bits: Bits,
    /// Whether the value is scale · code + offset instead of scale · (code − zero); not with 6 bits.
    pub has_offset: bool,
}

impl PackedShape {
    /// Panels of 16 rows, the last one padded.
    #[must_use]
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Groups of 32 columns.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.cols / GROUP
    }

    /// Bytes of one block of one panel: codes, scales, offsets.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.bits.scales_at() + HALVES * if self.has_offset { 2 } else { 1 }
    }

    /// Bytes of a panel.
    #[must_use]
    pub fn panel_bytes(&self) -> usize {
        self.cols / self.bits.block_cols() * self.block_bytes()
    }

    /// Bytes of all panels.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// The rows of some panels.
    #[must_use]
    pub fn rows_of(&self, panels: Range<usize>) -> Range<usize> {
        (panels.start * PANEL).min(self.rows)..(panels.end * PANEL).min(self.rows)
    }

    fn check(&self, bytes: usize) {
        assert!(
            self.cols.is_multiple_of(self.bits.block_cols()),
            "{} columns, not a multiple of {}",
            self.cols,
            self.bits.block_cols()
        );
        assert!(
            !self.has_offset || self.bits != Bits::B6,
            "6-bit codes have no offsets"
        );
        assert_eq!(bytes, self.bytes(), "bytes of {self:?}");
    }
}

/// Bytes of the f16 scales, or offsets, of one group of the 16 rows.
pub(crate) const HALVES: usize = 2 * PANEL;
/// Bytes of a group of 6-bit codes: the codes, and two scales of a byte for each of the 16 rows.
pub(crate) const GROUP6: usize = Bits::B6.code_bytes() + 2 * PANEL;
/// Bytes of a block of them.
pub(crate) const BLOCK6: usize = Bits::B6.scales_at() + HALVES;

/// A packed matrix.
#[derive(Clone, Copy, Debug)]
pub struct PackedRef<'a> {
    shape: PackedShape,
    bytes: &'a [u8],
}

impl<'a> PackedRef<'a> {
    /// A matrix of this shape.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    #[must_use]
    pub fn new(shape: PackedShape, bytes: &'a [u8]) -> Self {
        shape.check(bytes.len());
        Self { shape, bytes }
    }

    /// Sizes.
    #[must_use]
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// The groups of one panel.
    pub(crate) fn panel(&self, panel: usize) -> &'a [u8] {
        let len = self.shape.panel_bytes();
        &self.bytes[panel * len..][..len]
    }
}

/// A packed matrix, or some panels of one, to be written.
#[derive(Debug)]
pub struct PackedMut<'a> {
    pub(crate) shape: PackedShape,
    bytes: &'a mut [u8],
}

impl<'a> PackedMut<'a> {
    /// A matrix of this shape.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    #[must_use]
    pub fn new(shape: PackedShape, bytes: &'a mut [u8]) -> Self {
        shape.check(bytes.len());
        Self { shape, bytes }
    }

    /// Sizes.
    #[must_use]
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// All panels, to be filled with bytes that lie so already.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// The groups of one panel.
    pub(crate) fn panel(&mut self, panel: usize) -> &mut [u8] {
        let len = self.shape.panel_bytes();
        &mut self.bytes[panel * len..][..len]
    }

    /// Makes some panels zeros.
    pub(crate) fn clear(&mut self, panels: Range<usize>) {
        let len = self.shape.panel_bytes();
        self.bytes[panels.start * len..panels.end * len].fill(0);
    }

    /// The first `panels` panels and the rest, each a matrix of its own: to pack with several threads.
    ///
    /// # Panics
    /// If there are fewer panels.
    #[must_use]
    pub fn split_at_panel(self, panels: usize) -> (Self, Self) {
        let shape = self.shape;
        assert!(
            panels <= shape.panels(),
            "split at panel {panels} of {}",
            shape.panels()
        );
        let rows = (panels * PANEL).min(shape.rows);
        let head = PackedShape { rows, ..shape };
        let tail = PackedShape {
            rows: shape.rows - rows,
            ..shape
        };
        let (first, rest) = self.bytes.split_at_mut(head.bytes());
        (Self::new(head, first), Self::new(tail, rest))
    }
}

/// Calls the kernel of a matrix's format, `function::<panels, bytes of codes, bytes of a block>`.
#[cfg(target_arch = "x86_64")]
macro_rules! by_format {
    ($shape:expr, $function:ident :: <$panels:tt> ( $($arg:expr),* )) => {{
        let shape: $crate::packed::PackedShape = $shape;
        match (shape.bits, shape.has_offset) {
            ($crate::packed::Bits::B4, false) => $function::<$panels, 256, 288>($($arg),*),
            ($crate::packed::Bits::B4, true) => $function::<$panels, 256, 320>($($arg),*),
            ($crate::packed::Bits::B6, _) => $function::<$panels, 384, { $crate::packed::BLOCK6 }>($($arg),*),
            ($crate::packed::Bits::B8, false) => $function::<$panels, 512, 544>($($arg),*),
            ($crate::packed::Bits::B8, true) => $function::<$panels, 512, 576>($($arg),*),
        }
    }};
}
#[cfg(target_arch = "x86_64")]
pub(crate) use by_format;

/// The first N bytes of a group and the rest.
#[inline]
pub(crate) fn split<const N: usize>(bytes: &[u8]) -> (&[u8; N], &[u8]) {
    bytes
        .split_first_chunk()
        .expect("a group's parts are given by its shape")
}

/// A half of 16, such as the scale of row `r` of a group.
pub(crate) fn half(bits: &[u8], r: usize) -> f32 {
    half::f16::from_le_bytes([bits[2 * r], bits[2 * r + 1]]).to_f32()
}
