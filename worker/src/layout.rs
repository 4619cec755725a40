//! Holds a structure to the size and the places of its fields that a format's documentation gives, when it is compiled.

/// `layout!(Type: size, field @ offset, …);`
macro_rules! layout {
    ($type:ident: $size:literal $(, $field:ident @ $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(crate) use layout;
