// The photos in the grid that stand for several: the photo, what its button says, and, where they are shown, the others.
async () =>
  [...document.querySelectorAll("#results .tile")]
    .map((tile) => [tile, tile.querySelector(".times")])
    .filter(([, button]) => button.checkVisibility())
    .map(([tile, button]) => ({
      photo: tile.querySelector(".photo").title,
      stands: button.textContent,
      says: button.ariaLabel,
      open: button.ariaExpanded === "true",
      copies: [...document.getElementById(button.getAttribute("aria-controls")).querySelectorAll(".photo")].map(
        (photo) => photo.title,
      ),
    }))
