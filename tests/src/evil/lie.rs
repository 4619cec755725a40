//! The lies of an evil worker that serves a mount or answers a tool, by their names; each lies in one place and is
//! honest otherwise.

macro_rules! lies {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One lie.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Lie { $($(#[$doc])* $name),* }

        impl Lie {
            /// Each, in the order of the instruction's numbers.
            pub const ALL: &[Lie] = &[$(Lie::$name),*];
        }
    };
}

lies! {
    /// None.
    None,
    /// The file has the root's node.
    NodeOfTheRoot,
    /// The file has node 0.
    NodeZero,
    /// The file becomes a directory when it is asked for again.
    ChangesType,
    /// The file is of no type.
    NoType,
    /// The file has 2^64 - 1 bytes.
    SizeOverAll,
    /// The file has 2^63 - 1 bytes.
    SizeOfTheLargest,
    /// A name with a slash is listed.
    NameWithSlash,
    /// A name of no length is listed.
    NameOfNothing,
    /// A name of 4000 bytes is listed.
    NameTooLong,
    /// A name with a NUL is listed.
    NameWithNul,
    /// The directory lists one name for ever, and its cookie never advances.
    ListsForEver,
    /// The directory holds itself.
    HoldsItself,
    /// A time has 2^32 - 1 nanoseconds.
    Nanoseconds,
    /// More bytes come than were asked for.
    ReadsTooMuch,
    /// The target of the link has 5000 bytes.
    LinkTooLong,
    /// The link leads to /etc/passwd.
    LinkToThePasswords,
    /// The list of attributes has no NUL at its end.
    AttributesWithoutEnd,
    /// The file belongs to root, is setuid and may be executed.
    SetuidRoot,
    /// The file is the device 1:3.
    DeviceNode,
    /// The file is a FIFO.
    Fifo,
    /// The file system has as many blocks as there are numbers.
    Absurd,
    /// An answer has fewer bytes than its head.
    ShorterThanItsHead,
    /// An answer says that it is longer than it is.
    LengthOfAnother,
    /// An answer to a request that was not made.
    AnswersNobody,
    /// Every answer comes twice.
    AnswersTwice,
    /// An answer with an error that there is not.
    ErrorOfNoNumber,
    /// An error that is no error: a number above zero.
    ErrorAboveZero,
    /// Two requests are answered in the other order, each with the other's answer.
    AnswersTheOther,
    /// Every kind of notice that there is, with bytes of chance.
    Notices,
    /// No answer at all.
    Silence,
    /// FUSE_INIT is answered again, twice.
    InitAgain,
    /// The worker goes on when the mount is gone.
    OutlivesTheMount,
    /// Reports to the broker, as many as it takes, while the mount is served.
    Reports,
}
