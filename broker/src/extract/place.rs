//! Where something lies below the directory that is extracted: a name, and the place of the directory it lies in.
//!
//! What holds here: a name has 1 to 255 bytes, no slash and no NUL, and is neither `.` nor `..`.

use std::ops::Deref;
use std::rc::Rc;

/// A place. Copies share what lies above.
#[derive(Clone, Debug)]
pub(crate) struct Place(Rc<Node>);

/// A name on the way.
#[derive(Debug)]
pub(crate) struct Node {
    /// The directory it lies in; none for what is extracted itself.
    pub(crate) parent: Option<Place>,
    /// Its name there.
    pub(crate) name: Rc<[u8]>,
    /// How many directories lie above.
    pub(crate) depth: usize,
}

impl Place {
    /// What is extracted itself.
    pub(crate) fn root() -> Self {
        Self(Rc::new(Node { parent: None, name: Rc::from(*b"."), depth: 0 }))
    }

    /// What has this name in this directory.
    pub(crate) fn below(&self, name: Rc<[u8]>) -> Self {
        Self(Rc::new(Node { parent: Some(self.clone()), name, depth: self.depth + 1 }))
    }

    /// `./a/b`.
    pub(crate) fn path(&self) -> Vec<u8> {
        self.names().iter().fold(b".".to_vec(), |path, name| [&path[..], b"/", name].concat())
    }

    /// The names from what is extracted down to this.
    pub(crate) fn names(&self) -> Vec<Rc<[u8]>> {
        let (mut names, mut node) = (vec![], self);
        while let Some(parent) = &node.parent {
            names.push(node.name.clone());
            node = parent;
        }
        names.reverse();
        names
    }

    /// Whether both are the same place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Place {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_path() {
        let root = Place::root();
        let below = root.below(Rc::from(*b"a")).below(Rc::from(*b"b"));
        assert_eq!((root.path(), below.path(), below.depth), (b".".to_vec(), b"./a/b".to_vec(), 2));
        assert!(below.is(&below.clone()) && !below.is(&root));
    }
}
