//! Several sorted symbol tables into one.

use super::in_index;
use crate::block::Block;
use crate::{Error, Result};

/// What a block's symbols are called in the merged table.
pub(super) enum Renumbering {
    /// By number.
    Numbers(Vec<u32>),
    /// By what labels call them, sorted: index version 1 calls them by offset.
    References(Vec<(u32, u32)>),
}

impl Renumbering {
    /// From pairs of what a block's labels call a symbol, ascending, and its new number.
    pub(super) fn new(pairs: Vec<(u32, u32)>) -> Self {
        if pairs.iter().zip(0..).all(|(pair, number)| pair.0 == number) {
            Self::Numbers(pairs.into_iter().map(|pair| pair.1).collect())
        } else {
            Self::References(pairs)
        }
    }

    /// The new number of a symbol; `None` where there is no such symbol.
    pub(super) fn get(&self, reference: u32) -> Option<u32> {
        match self {
            Self::Numbers(numbers) => numbers.get(reference as usize).copied(),
            Self::References(pairs) => {
                pairs.binary_search_by_key(&reference, |pair| pair.0).ok().map(|at| pairs[at].1)
            }
        }
    }
}

/// The renumbering of each block, and how many symbols the merged table has.
pub(super) fn renumber(blocks: &[Block]) -> Result<(Vec<Renumbering>, u32)> {
    let mut pairs: Vec<Vec<(u32, u32)>> = Vec::new();
    pairs.extend(
        blocks.iter().map(|block| Vec::with_capacity(block.parts().index.symbols().count() as usize)),
    );
    let mut count = 0;
    for_each_merged(blocks, |_, references| {
        for &(block, reference) in references {
            pairs[block].push((reference, count));
        }
        count += 1;
        Ok(())
    })?;
    Ok((pairs.into_iter().map(Renumbering::new).collect(), count))
}

/// Visits the distinct symbols in order, each with the blocks that have it and what they call it.
pub(super) fn for_each_merged(
    blocks: &[Block],
    mut visit: impl FnMut(&str, &[(usize, u32)]) -> Result<()>,
) -> Result<()> {
    let mut tables = Vec::with_capacity(blocks.len());
    for (number, block) in blocks.iter().enumerate() {
        let mut symbols = block.parts().index.symbols().iter();
        if let Some(first) = symbols.next() {
            tables.push((first.map_err(|e| in_index(block, e))?, number, symbols));
        }
    }
    let mut references = Vec::with_capacity(blocks.len());
    while let Some(least) = tables.iter().map(|((_, text), _, _)| *text).min() {
        references.clear();
        let mut at = 0;
        while at < tables.len() {
            let ((reference, text), block, rest) = &mut tables[at];
            if *text == least {
                references.push((*block, *reference));
                match rest.next().transpose().map_err(|e| in_index(&blocks[*block], e))? {
                    Some(next) if next.1 <= least => {
                        let error = Error::corrupt("symbol table", 0, format!("{:?} isn't in order", next.1));
                        return Err(in_index(&blocks[*block], error));
                    }
                    Some(next) => (*reference, *text) = next,
                    None => {
                        drop(tables.remove(at));
                        continue;
                    }
                }
            }
            at += 1;
        }
        visit(least, &references)?;
    }
    Ok(())
}
