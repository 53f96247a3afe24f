// Builds the page around Windmill's form. What a form of these steps shows no use of is left out of it: charts, tables,
// terminals, and the code editor, in whose place a plain box stands.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import forms from '@tailwindcss/forms'
import tailwind from 'tailwindcss'
import { defineConfig } from 'vite'

const windmill = resolve('node_modules/windmill-components/package')
const unused = /^(monaco-|@codingame\/|vscode|@xterm|ag-grid|ag-charts|pdfjs|quill|ol(\/|$))|\?worker/

// Windmill's components expect SvelteKit around them; a page alone has this much of it.
const kit = {
  '$app/environment': 'export const browser = true, dev = false, building = false',
  '$app/navigation': 'export default {}',
  '$app/paths': "export const base = ''",
  '$app/state': 'export const page = { url: new URL(location.href), params: {} }',
  '$app/stores': "import { readable } from 'svelte/store'; export const page = readable({ url: new URL(location.href) })",
}

const small = {
  name: 'small',
  enforce: 'pre',
  resolveId: (id) => {
    if (/(^|\/)\w*Editor(Typed)?\.svelte$/.test(id) && !/(Variable|Resource|Drawer)/.test(id)) return resolve('Box.svelte')
    if (unused.test(id)) return '\0empty'
    if (id in kit) return `\0${id}`
  },
  load: (id) => (id === '\0empty' ? 'export default {}' : id.startsWith('\0$app') ? kit[id.slice(1)] : undefined),
}

const tokens = JSON.parse(readFileSync(`${windmill}/assets/tokens/tokens.json`, 'utf8')).tokens.light
const colors = Object.fromEntries(Object.entries(tokens).map(([name, value]) => [name.replace(/^text-/, ''), value]))

export default defineConfig({
  plugins: [small, svelte({ onwarn: () => {} })],
  resolve: { alias: { windmill, $lib: windmill } },
  css: {
    postcss: {
      plugins: [
        tailwind({
          content: ['*.svelte', `${windmill}/components/**/*.{svelte,js}`],
          theme: { extend: { colors, fontFamily: { main: 'inherit' } } },
          plugins: [forms],
        }),
      ],
    },
  },
  build: { target: 'esnext', minify: false, rollupOptions: { shimMissingExports: true, onwarn: () => {} } },
})
