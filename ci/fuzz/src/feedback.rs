//! Feedback messages: a list of blocks.

use shardgate_core::buffer::{Buffer, HeapBuffer};
use shardgate_core::wire::feedback::{
    BLOCK_HEADER_LEN, Block, BlockType, BlockWriter, Blocks, RANGES_MAX, Range, SEQ_LEN, SeqList,
};

pub fn fuzz(message: &[u8]) {
    let mut blocks = Blocks::new(message);
    let read: Vec<Block<'_>> = blocks.by_ref().collect();
    assert_eq!(blocks.next(), None, "it stays at its end");
    assert!(read.len() <= message.len() / BLOCK_HEADER_LEN);
    if blocks.is_malformed() {
        assert!(!message.is_empty());
    } else {
        assert_eq!(naive_count(message), Some(read.len()));
    }
    // What was read and is written again reads the same.
    let mut buffer = HeapBuffer::new(0, message.len() + 64);
    let mut writer = BlockWriter::new(&mut buffer, usize::MAX);
    let known: Vec<_> = read
        .into_iter()
        .filter(|block| write(&mut writer, block))
        .collect();
    let mut again = Blocks::new(buffer.data());
    for block in known {
        assert_eq!(again.next().map(contents), Some(contents(block)));
    }
    assert_eq!(again.next(), None);
    assert!(!again.is_malformed());
}

/// How many blocks there are, by their lengths.
fn naive_count(mut message: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let [_, _, high, low, rest @ ..] = message {
        message = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..)?;
        count += 1;
    }
    message.is_empty().then_some(count)
}

/// Writes a block; false if there is nothing of it to write.
fn write(writer: &mut BlockWriter<'_, HeapBuffer>, block: &Block<'_>) -> bool {
    let mut list = |block_type, seqs: &SeqList<'_>| {
        let all: Vec<_> = seqs.iter().collect();
        assert!(all.len() <= usize::from(u16::MAX) / SEQ_LEN);
        let written = writer.seqs(block_type, all.iter().copied());
        assert_eq!(written, all.len());
        written > 0
    };
    let written = match block {
        Block::Wanted(seqs) => return list(BlockType::Wanted, seqs),
        Block::NotSent(seqs) => return list(BlockType::NotSent, seqs),
        Block::Skipped => return false,
        Block::Report(report, ranges) => {
            let ranges: Vec<Range> = ranges.iter().collect();
            assert!(ranges.len() <= RANGES_MAX);
            writer.report(report, &ranges)
        }
        Block::Challenge { token, sent_at_us } => writer.challenge(*token, *sent_at_us),
        Block::Echo {
            token,
            sent_at_us,
            held_us,
        } => writer.echo(*token, *sent_at_us, *held_us),
        Block::Close => writer.close(),
        Block::Extent { highest, floor } => writer.extent(*highest, *floor),
    };
    assert!(written, "no block grows: {block:?}");
    true
}

/// A block with what its lists hold, for comparison.
fn contents(block: Block<'_>) -> String {
    match block {
        Block::Report(report, ranges) => {
            format!("{report:?} {:?}", ranges.iter().collect::<Vec<_>>())
        }
        Block::Wanted(seqs) => format!("wanted {:?}", seqs.iter().collect::<Vec<_>>()),
        Block::NotSent(seqs) => format!("not sent {:?}", seqs.iter().collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}
