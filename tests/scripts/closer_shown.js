// The question of which photo is closer, as the page shows it: the ids of the two photos, or null where nothing is
// asked; what is said beside it; whether it waits for the next one; and whether it can be begun.
async () => {
  const box = document.getElementById("closer");
  const asked = box.checkVisibility() && document.getElementById("closer-pair").checkVisibility();
  const ids = [...box.querySelectorAll("img")].map(({ dataset }) => dataset.path?.match(/\d+/)[0]);
  return {
    shown: box.checkVisibility(),
    question: asked ? ids : null,
    said: document.getElementById("closer-said").textContent,
    waits: box.ariaBusy === "true",
    offered: document.getElementById("closer-open").checkVisibility(),
  };
}
