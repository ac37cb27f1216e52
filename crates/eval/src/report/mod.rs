//! The report: what a recipe measures, beside the paper's own numbers, as one page without anything from elsewhere and as Markdown.
//!
//! - [`recipe`]: cells (each an `edgethink eval` with its own folder of records), tables of cells, goals
//! - [`cell`]: a cell's records, read back, and its figures
//! - `tables`: each kind of table and figure from records
//! - `paper`: the paper's numbers
//! - [`page`]: HTML and Markdown

pub mod cell;
pub mod page;
mod paper;
pub mod recipe;
mod tables;

use crate::error::EvalError;
use cell::Cell;
use page::Page;
use recipe::Recipe;

/// Makes the page of a recipe from the records in its folder; what has none is shown as not measured.
///
/// # Errors
/// Records that are damaged, a chart that cannot be drawn.
pub fn build(recipe: &Recipe) -> Result<Page, EvalError> {
    let cells = recipe
        .cells
        .iter()
        .map(|cell| Cell::read(cell, &recipe.cell_dir(&cell.name)))
        .collect::<Result<Vec<Option<Cell>>, _>>()?;
    let cells: Vec<Cell> = cells.into_iter().flatten().collect();
    tables::page(recipe, &cells)
}

/// Builds the page and writes `index.html`, `README.md` and the figures into the recipe's folder.
///
/// # Errors
/// As [`build`], and a folder that cannot be written.
pub fn write(recipe: &Recipe) -> Result<(), EvalError> {
    let page = build(recipe)?;
    let dir = &recipe.output_dir;
    std::fs::create_dir_all(dir).map_err(|source| EvalError::Write {
        path: dir.clone(),
        source,
    })?;
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|source| EvalError::Write { path, source })
    };
    write("index.html", page.html())?;
    write("README.md", page.markdown())?;
    for (name, svg) in page.figures() {
        write(name, svg.to_owned())?;
    }
    Ok(())
}
