//! What the other side did against the protocol.
//!
//! Absent on purpose: what follows from it. A host ends a worker that breaks the protocol; a worker ends.

use thiserror::Error;

/// A breach of the protocol by the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Breach {
    /// The caller counts more slots than there are.
    #[error("it calls in a slot that does not exist")]
    NoSuchSlot,
    /// The caller posted a call into a slot whose call has no answer yet.
    #[error("it has two calls in one slot")]
    SlotInUse,
    /// The caller names an area beyond the last.
    #[error("it names an area that does not exist")]
    NoSuchArea,
    /// The caller names an area that belongs to another call.
    #[error("it has two calls in one area")]
    AreaInUse,
    /// Method and request do not fit into slot or area.
    #[error("its request is larger than the room for it")]
    LongRequest,
    /// The caller wakes threads again and again without calling anybody.
    #[error("it keeps waking threads without calling")]
    FalseAlarms,
    /// The worker wrote a state that no slot can have.
    #[error("it wrote an unknown state into a slot")]
    UnknownState,
    /// The worker wakes its caller again and again without an answer.
    #[error("it keeps waking its caller without an answer")]
    FalseWakes,
    /// The worker asked for an area although it had got one.
    #[error("it wants a second area")]
    SecondArea,
    /// The worker took back its request for an area.
    #[error("it no longer wants the area that it asked for")]
    AreaDeclined,
    /// The reply does not fit into slot or area.
    #[error("its reply is larger than the room for it")]
    LongReply,
    /// The media type of the reply does not fit into its field.
    #[error("its media type is too long")]
    LongMediaType,
}
