// The groups in the grid, in their places: the rank in the corner, the best photo, how many it holds, and, where it is
// open, the others of its photos that are shown.
async () =>
  [...document.querySelectorAll("#results > li")].map((item) => {
    const toggle = item.querySelector(".toggle");
    return {
      rank: Number(item.querySelector(".rank").textContent),
      best: item.querySelector(".photo").title,
      size: toggle ? Number(toggle.textContent) : 1,
      open: toggle?.getAttribute("aria-expanded") === "true",
      more: [...item.querySelectorAll(".further .photo")].map((photo) => photo.title),
    };
  })
