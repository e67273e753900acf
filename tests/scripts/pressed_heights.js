// How high the names of things, and the buttons in the line of the query are for a finger, in pixels.
() => {
  const buttons = [...document.querySelectorAll(".parts button")].filter((one) => one.checkVisibility());
  const names = [...document.querySelectorAll(".things input")].map((one) => one.offsetHeight);
  return [...names, ...buttons.map((one) => parseFloat(getComputedStyle(one, "::after").height))];
}
