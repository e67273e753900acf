// The query as the page shows it: whether the line is there, and each part of it as it is read out; and the address.
async () => {
  const line = document.getElementById("parts");
  const parts = [...line.querySelectorAll(".part")].filter((part) => part.checkVisibility());
  return {
    shown: line.checkVisibility({ visibilityProperty: true }),
    parts: parts.map((part) => part.ariaLabel),
    undo: document.getElementById("parts-undo").checkVisibility(),
    hash: location.hash,
  };
}
