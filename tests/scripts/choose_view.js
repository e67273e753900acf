// Chooses what the page is to show, as a person does in its settings.
(view) => {
  document.querySelector(`#views input[value="${view}"]`).click();
}
