// The page at /join as an app: it trains as long as it is in the foreground. Its manifest asks for INTERNET, and may
// name https links of the server's for it to open.

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.webkit.ValueCallback
import android.webkit.WebChromeClient
import android.webkit.WebView
import android.webkit.WebViewClient

class JoinActivity : Activity() {
    private var chosen: ValueCallback<Array<Uri>>? = null

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        val view = WebView(this)
        view.settings.javaScriptEnabled = true
        view.settings.domStorageEnabled = true               // beside IndexedDB: which run it was
        view.webViewClient = WebViewClient()                 // links stay in the app
        view.webChromeClient = object : WebChromeClient() {
            override fun onShowFileChooser(view: WebView, answer: ValueCallback<Array<Uri>>, how: FileChooserParams): Boolean {
                chosen = answer
                startActivityForResult(how.createIntent(), 1)
                return true
            }
        }
        setContentView(view)
        view.loadUrl(intent.dataString ?: "https://HOST/join")  // the link, from a message or a QR code
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        chosen?.onReceiveValue(WebChromeClient.FileChooserParams.parseResult(result, data))
    }
}
