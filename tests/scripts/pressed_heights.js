// How high the buttons at things and in the line of the query are for a finger, in pixels.
() => {
  const buttons = [...document.querySelectorAll(":is(.things, .parts) button")].filter((one) => one.checkVisibility());
  return buttons.map((one) => parseFloat(getComputedStyle(one, "::after").height));
}
