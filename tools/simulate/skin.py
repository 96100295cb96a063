"""A patch of skin that expressions move, and the way back: where what is now at a place comes from.

Lids and lips stretch the skin several times over and squeeze it to nothing, so the way back is not found by
iteration but by turning each column's rows round, which are in order because skin does not pass skin. Sideways
movement is gentle; there iteration does.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_PACKED = 0.02
"""Skin never comes closer together than this share of what it was."""
_FAR = 50
"""Rows beyond the patch for which its border's movement goes on."""
_SIDEWAYS_ROUNDS = 2
_STILL_PX = 0.01


class Patch:
    """Skin on a lattice of the photo.

    Args:
        corner_px: (x, y) px of the photo where the first node lies.
        step_px: (x, y) px from node to node.
        moves: (55, rows, columns, 3) px at weight 1 of each of the model's shapes.
    """

    def __init__(self, corner_px: NDArray[np.floating], step_px: tuple[float, float], moves: Floats) -> None:
        self.corner_px = np.asarray(corner_px, np.float32)
        self.step_px = np.array(step_px, np.float32)
        self.moves = moves
        rows, columns = moves.shape[1:3]
        self.size_px = self.step_px * (columns - 1, rows - 1)
        self._node_from_px = np.column_stack([np.diag(1 / self.step_px), -self.corner_px / self.step_px])
        """(2, 3); numpy would be slow on an axis of two."""
        self._column, self._row = np.meshgrid(
            np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32)
        )
        self._reach_px = np.abs(moves).max(axis=(1, 2, 3))
        # Columns lie one after the other on one long axis, so that a single search serves all of them.
        self._apart = 1000.0 * np.arange(columns)[:, None]
        self._wanted = (self._apart + np.arange(rows)).ravel()
        self._packed = _PACKED * np.arange(rows)
        self._forward = np.empty((columns, rows + 2))
        self._source = np.tile(np.r_[-float(_FAR), np.arange(rows), rows - 1.0 + _FAR], columns)

    def moved_by(self, weights: Floats) -> bool:
        """Tell whether the expression moves anything here by more than _STILL_PX."""
        return float(weights @ self._reach_px) > _STILL_PX

    def back(self, weights: Floats, tilt: NDArray[np.float64]) -> Floats:
        """Give the way back for one expression.

        Args:
            weights: (55,) of the shapes.
            tilt: (2, 3) that takes a movement in three dimensions to one in the photo.

        Returns:
            (rows, columns, 2) px: added to a node's place it gives the place that moved there.
        """
        moved = np.zeros(self.moves.shape[1:], np.float32)
        for number in np.flatnonzero(weights):
            cv2.scaleAdd(self.moves[number], float(weights[number]), moved, moved)
        across, down = cv2.split(cv2.transform(moved, tilt / self.step_px[:, None]))
        forward = self._forward
        forward[:, 1:-1] = (self._row + down).T - self._packed
        np.maximum.accumulate(forward[:, 1:-1], axis=1, out=forward[:, 1:-1])
        forward[:, 1:-1] += self._packed
        forward[:, 0], forward[:, -1] = forward[:, 1] - _FAR, forward[:, -2] + _FAR
        found = np.interp(self._wanted, (forward + self._apart).ravel(), self._source)
        rows = np.ascontiguousarray(found.reshape(self._column.shape[::-1]).T, dtype=np.float32)
        sideways = _look_up(across, self._column, rows)
        column = self._column
        for _ in range(_SIDEWAYS_ROUNDS):
            column = self._column - _look_up(sideways, column, self._row)
        row = _look_up(rows, column, self._row)
        across_px, down_px = self.step_px
        return np.asarray(
            cv2.merge([across_px * (column - self._column), down_px * (row - self._row)]), np.float32
        )

    def at(self, back: Floats, places_px: Floats) -> Floats:
        """Give the way back (..., 2) px from any places (..., 2) px of the photo."""
        where = cv2.transform(places_px, self._node_from_px)
        return np.asarray(
            cv2.remap(back, where, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE), np.float32
        )


def _look_up(values: Floats, column: Floats, row: Floats) -> Floats:
    return np.asarray(
        cv2.remap(values, column, row, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE), np.float32
    )
