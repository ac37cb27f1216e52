//! The layout of packed integer weights `[rows, cols]`, value = scale · (code − zero) with zero 8 (4-bit) or 128 (8-bit), or
//! scale · code + offset.
//!
//! Rows are cut into panels of [`PANEL`] = 16, columns into groups of [`GROUP`] = 32, and the four columns 4j..4j+4 of a group are
//! its quad j. A quad of all 16 rows is 64 bytes, row after row, 4 columns each: one 512-bit register in which each 32-bit lane is
//! one row, so that one `vpdpbusd` (or four `sdot`) with four broadcast activations advances 16 rows by 4 columns.
//!
//! ```text
//! quants   [panel][group][ 8-bit: quad 0 .. quad 7, 64 bytes each                                          ]
//!                        [ 4-bit: 4 blocks of 64 bytes; block j holds quad j in the low and quad j+4 in the high nibbles ]
//! scales   [panel][group][16 rows]   f16 bits;   offsets the same
//! ```
//! Rows beyond `rows` in the last panel are zeros with scale 0. A panel is contiguous, so any range of panels is a slice.

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
    /// Codes 0..=255, zero point 128.
    B8,
}

impl Bits {
    /// The code that means 0 where there is no offset.
    #[must_use]
    pub fn zero(self) -> u8 {
        match self {
            Self::B4 => 8,
            Self::B8 => 128,
        }
    }

    /// The largest code.
    #[must_use]
    pub fn max_code(self) -> u8 {
        match self {
            Self::B4 => 15,
            Self::B8 => 255,
        }
    }

    /// Bytes of one group of one panel.
    pub(crate) const fn group_bytes(self) -> usize {
        match self {
            Self::B4 => GROUP * PANEL / 2,
            Self::B8 => GROUP * PANEL,
        }
    }
}

/// Sizes of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedShape {
    /// Output features.
    pub rows: usize,
    /// Input features, a multiple of [`GROUP`].
    pub cols: usize,
    /// Width of a code.
    pub bits: Bits,
    /// Whether the value is scale · code + offset instead of scale · (code − zero).
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

    /// Bytes of the quants.
    #[must_use]
    pub fn quant_bytes(&self) -> usize {
        self.panels() * self.groups() * self.bits.group_bytes()
    }

    /// Number of f16 scales, and of offsets where there are any.
    #[must_use]
    pub fn scale_count(&self) -> usize {
        self.panels() * self.groups() * PANEL
    }

    /// The rows of some panels.
    #[must_use]
    pub fn rows_of(&self, panels: Range<usize>) -> Range<usize> {
        (panels.start * PANEL).min(self.rows)..(panels.end * PANEL).min(self.rows)
    }

    fn check(&self, quants: usize, scales: usize, offsets: Option<usize>) {
        assert!(
            self.cols.is_multiple_of(GROUP),
            "{} columns, not a multiple of {GROUP}",
            self.cols
        );
        assert_eq!(quants, self.quant_bytes(), "bytes of quants of {self:?}");
        assert_eq!(scales, self.scale_count(), "scales of {self:?}");
        let expected = self.has_offset.then(|| self.scale_count());
        assert_eq!(offsets, expected, "offsets of {self:?}");
    }
}

/// A packed matrix.
#[derive(Clone, Copy, Debug)]
pub struct PackedRef<'a> {
    shape: PackedShape,
    quants: &'a [u8],
    scales: &'a [u16],
    offsets: Option<&'a [u16]>,
}

impl<'a> PackedRef<'a> {
    /// Puts the parts together.
    ///
    /// # Panics
    /// If a length does not fit the shape.
    #[must_use]
    pub fn new(
        shape: PackedShape,
        quants: &'a [u8],
        scales: &'a [u16],
        offsets: Option<&'a [u16]>,
    ) -> Self {
        shape.check(quants.len(), scales.len(), offsets.map(<[u16]>::len));
        Self {
            shape,
            quants,
            scales,
            offsets,
        }
    }

    /// Sizes.
    #[must_use]
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// Codes of one panel: `[groups][group bytes]`.
    pub(crate) fn panel_quants(&self, panel: usize) -> &'a [u8] {
        let len = self.shape.groups() * self.shape.bits.group_bytes();
        &self.quants[panel * len..][..len]
    }

    /// Scales of one panel: `[groups][16]`.
    pub(crate) fn panel_scales(&self, panel: usize) -> &'a [[u16; PANEL]] {
        self.panel_halves(self.scales, panel)
    }

    /// Offsets of one panel: `[groups][16]`; empty where there are none.
    pub(crate) fn panel_offsets(&self, panel: usize) -> &'a [[u16; PANEL]] {
        self.offsets
            .map_or(&[], |offsets| self.panel_halves(offsets, panel))
    }

    fn panel_halves(&self, all: &'a [u16], panel: usize) -> &'a [[u16; PANEL]] {
        let len = self.shape.groups() * PANEL;
        all[panel * len..][..len].as_chunks().0
    }
}

/// A packed matrix, or some panels of one, to be written.
#[derive(Debug)]
pub struct PackedMut<'a> {
    pub(crate) shape: PackedShape,
    pub(crate) quants: &'a mut [u8],
    pub(crate) scales: &'a mut [u16],
    pub(crate) offsets: Option<&'a mut [u16]>,
}

impl<'a> PackedMut<'a> {
    /// Puts the parts together.
    ///
    /// # Panics
    /// If a length does not fit the shape.
    #[must_use]
    pub fn new(
        shape: PackedShape,
        quants: &'a mut [u8],
        scales: &'a mut [u16],
        offsets: Option<&'a mut [u16]>,
    ) -> Self {
        shape.check(
            quants.len(),
            scales.len(),
            offsets.as_ref().map(|o| o.len()),
        );
        Self {
            shape,
            quants,
            scales,
            offsets,
        }
    }

    /// Sizes.
    #[must_use]
    pub fn shape(&self) -> PackedShape {
        self.shape
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
        let (q0, q1) = self.quants.split_at_mut(head.quant_bytes());
        let (s0, s1) = self.scales.split_at_mut(head.scale_count());
        let (o0, o1) = match self.offsets.map(|o| o.split_at_mut(head.scale_count())) {
            Some((o0, o1)) => (Some(o0), Some(o1)),
            None => (None, None),
        };
        (Self::new(head, q0, s0, o0), Self::new(tail, q1, s1, o1))
    }
}
