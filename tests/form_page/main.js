import { mount } from 'svelte'
import { workspaceStore } from 'windmill/stores.js'
import Form from './Form.svelte'

window.onerror = (message) => {
  // A browser's notice, and no error: the form is laid out once more.
  if (!String(message).startsWith('ResizeObserver')) document.documentElement.dataset.error = message
}
workspaceStore.set('acme')
const props = await (await fetch('/form.json')).json()
mount(Form, { target: document.body, props })
// Virtual time: it has passed before the picture is taken.
setTimeout(() => (document.documentElement.dataset.height = document.body.scrollHeight), 4000)
