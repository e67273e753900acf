// What is seen of these elements but cut, or lies beyond the window.
(selector) => {
  const seen = [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility() && one.textContent);
  return seen.filter((one) => one.scrollWidth > one.clientWidth || one.getBoundingClientRect().right > innerWidth).map((one) => one.textContent);
}
