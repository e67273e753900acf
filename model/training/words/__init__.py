"""Words in trainings: the vocabulary that a checkpoint gets, and the word vectors that classes are pulled to."""

from model.training.words.giving_words import give_words, with_words
from model.training.words.word_vectors import WordVectors, class_rows, class_vectors, read_word_vectors

__all__ = [
    "WordVectors",
    "class_rows",
    "class_vectors",
    "give_words",
    "read_word_vectors",
    "with_words",
]
