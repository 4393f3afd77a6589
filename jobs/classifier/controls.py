"""Baselines for classifiers, and the similarity of held-out images to training images."""

import numpy as np
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

THUMBNAIL_SIDE = 32  # pixels of a thumbnail: sufficient to distinguish heads, and 100,000 thumbnails need only 400 MB
_BLOCK = 1024
_TREES = 200


def thumbnails(images: np.ndarray) -> np.ndarray:
    """uint8 [n, size, size] -> float32 [n, 32 * 32], each of mean 0 and length 1 (a blank image: all 0)."""
    small = [Image.fromarray(image).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX) for image in images]
    flat = np.array([np.asarray(image, np.float32).ravel() for image in small], np.float32).reshape(
        -1, THUMBNAIL_SIDE**2
    )
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, 1)


def most_similar(training: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The training thumbnail with the highest Pearson correlation for each of n query thumbnails.

    Returns its index, int64 [n], and the correlation, float32 [n] in [-1, 1].
    """
    index, similarity = np.zeros(len(query), np.int64), np.zeros(len(query), np.float32)
    for start in range(0, len(query), _BLOCK):
        products = query[start : start + _BLOCK] @ training.T
        index[start : start + _BLOCK] = best = products.argmax(axis=1)
        similarity[start : start + _BLOCK] = products[np.arange(len(products)), best]
    return index, similarity


def majority(truth: np.ndarray, classes: int, n: int) -> np.ndarray:
    """Probabilities [n, classes]: for every image the class frequencies of the training images."""
    return np.tile(np.bincount(truth, minlength=classes) / len(truth), (n, 1))


def file_only(training: np.ndarray, truth: np.ndarray, query: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Probabilities [n, classes] of a random forest (Breiman, 2001) on five numbers of each file, float [n, 5]:
    size in bytes, width, height, aspect ratio and border brightness.

    Its accuracy above chance shows that file properties reveal the class: image classifiers can exploit them too.
    """
    forest = RandomForestClassifier(_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1).fit(training, truth)
    probabilities = np.zeros((len(query), classes))
    probabilities[:, forest.classes_] = forest.predict_proba(query)
    return probabilities


def similarity_bins(similarity: np.ndarray, bins: int) -> list[np.ndarray]:
    """Indices of the images in each of `bins` equally large bins, least similar first; fewer bins where values tie."""
    edges = np.unique(np.quantile(similarity, np.linspace(0, 1, bins + 1)[1:-1]))
    which = np.searchsorted(edges, similarity, side="left")
    found = [np.flatnonzero(which == b) for b in range(len(edges) + 1)]
    return [x for x in found if len(x)]
